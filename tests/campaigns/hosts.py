"""Two hosts without a shared disk, of which one is cut off, dies, and comes back: each trial is there once.

    pytest tests/campaigns/hosts.py -m campaign -n 0 -s

A host is a network namespace with a name, a temporary folder, a copy of the data and a folder of studies of its own;
it does not see those of the other one. Both run `automl worker --data …` on two devices. Needs root.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.campaigns.campaign import ROOT, Campaign
from tests.fixtures.postgres import PostgresServer, explain_missing

pytestmark = [pytest.mark.campaign, pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces")]

CUT_SECONDS = 100
"""Longer than a claim outlasts its worker's silence."""

DATABASE, NETWORK = "10.77.0.1", "10.77.0.{}/24"
BRIDGE = "automl-br"

HOOK = """
import os, sys
from pathlib import Path
if "--supervised" in sys.orig_argv:
    from tests.campaigns.watched_worker import watch
    watch(Path(os.environ["AUTOML_NOTES"]) / str(os.getpid()), float(os.environ["AUTOML_PAUSE"]))
"""
"""What Python imports first: the workers that a host starts note what they do."""


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Host:
    """A machine of its own, as far as a process can see."""

    def __init__(self, name, number, folder, others):
        self.name, self.folder, self.hidden, self.process = name, folder, others, None
        self.space, self.cable = f"automl-{name}", f"automl-{name}-c"
        run("ip", "netns", "add", self.space)
        run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        run("ip", "link", "set", self.cable, "master", BRIDGE, "up")
        inside = ("ip", "-n", self.space)
        run(*inside, "addr", "add", NETWORK.format(number), "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "link", "set", "lo", "up")
        (folder / "tmp").mkdir(parents=True)

    def start_workers(self, campaign, url):
        hide = "".join(f"mount -t tmpfs none '{path}' && " for path in self.hidden)
        script = f'hostname {self.name} && {hide}exec "$@"'
        command = ["ip", "netns", "exec", self.space, "unshare", "--uts", "--mount", "sh", "-c", script, "sh"]
        command += [sys.executable, "-m", "automl", "worker", "--study", "tones", "--device", "cpu,cpu"]
        command += ["--data", str(self.folder / "tones"), "--runs", str(self.folder / "runs")]
        env = {"PYTHONPATH": f"{campaign.folder / 'hook'}:{ROOT}", "TMPDIR": str(self.folder / "tmp")}
        env |= {"AUTOML_STORAGE": url, "AUTOML_CACHE": str(self.folder / "cache"), "AUTOML_PAUSE": str(campaign.pause)}
        env |= {"AUTOML_NOTES": str(campaign.folder / "notes")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=os.environ | env
            )

    def cut_off(self):
        """Packets go nowhere from now on; nothing else says so."""
        run("ip", "link", "set", self.cable, "nomaster")

    def mend(self):
        run("ip", "link", "set", self.cable, "master", BRIDGE)

    @property
    def processes(self):
        return {int(pid) for pid in run("ip", "netns", "pids", self.space).split()}

    def die(self):
        for pid in self.processes:
            os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()

    def remove(self):
        self.die()
        subprocess.run(["ip", "link", "del", self.cable], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.space], capture_output=True)

    def read_logs(self):
        logs = [self.folder / "log", *sorted((self.folder / "runs" / "tones" / "workers").glob("*.log"))]
        return "".join(path.read_text() for path in logs if path.exists())


@pytest.fixture
def network():
    """A switch, with the database's host on it."""
    if shutil.which("ip") is None or subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"]).returncode != 0:
        pytest.skip("no network can be made here")
    run("ip", "addr", "add", f"{DATABASE}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    yield
    subprocess.run(["ip", "link", "del", BRIDGE], check=True)


def wait_until(condition, seconds, what):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not in {seconds} s: {what}"
        time.sleep(0.2)


@pytest.mark.parametrize("artifacts", [False, True], ids=["begun anew", "from the artifacts"])
def test_two_hosts(tmp_path, network, artifacts):
    if reason := explain_missing():
        pytest.skip(reason)
    server, hosts = PostgresServer(address=DATABASE), []
    try:
        server.start()
        url = server.url(server.create_database())
        (tmp_path / "store").mkdir()
        store = str(tmp_path / "store") if artifacts else None
        campaign = Campaign(tmp_path, 120, url, pause=0.1, artifacts=store)
        (tmp_path / "hook").mkdir()
        (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
        folders = {name: tmp_path / name for name in ("one", "two")}
        for number, (name, folder) in enumerate(folders.items(), 2):
            shutil.copytree(campaign.images, folder / "tones")
            others = [path for path in (*folders.values(), campaign.runs, campaign.images) if path != folder]
            hosts.append(Host(name, number, folder, others))
        one, two = hosts
        for host in hosts:
            host.start_workers(campaign, url)

        def list_unfinished(processes):
            """The trials that processes have begun and nobody has ended, each with its last step."""
            steps = {}
            for _, process, trial, words in campaign.read_notes():
                if words[0] == "end":
                    steps.pop(trial, None)
                elif process in processes:
                    steps[trial] = int(words[1]) if words[0] == "step" else 0
            return steps

        def trained_by(host):
            processes = host.processes
            return {trial for _, process, trial, _ in campaign.read_notes() if process in processes}

        def is_in_the_middle(host):
            steps = list_unfinished(host.processes)
            return len(steps) == 2 and all(4 <= step <= 20 for step in steps.values())

        for host in hosts:
            wait_until(lambda host=host: len(trained_by(host)) >= 2, 180, f"{host.name} trains")
        wait_until(lambda: is_in_the_middle(one), 60, "two trials in their middle")
        one.cut_off()
        campaign.injected += 1
        time.sleep(CUT_SECONDS)
        cut = set(list_unfinished(one.processes))
        before = trained_by(one)
        taken = before & trained_by(two)
        one.mend()
        wait_until(lambda: trained_by(one) - before, 120, "the host that is back takes other trials")
        print(f"\ncut off: the other host took over {sorted(taken)}, and left {sorted(cut)}")
        assert taken
        assert cut <= taken
        wait_until(lambda: is_in_the_middle(one), 60, "two trials in their middle")
        its_own = one.processes
        one.die()
        campaign.injected += 1
        died = set(list_unfinished(its_own))
        assert died
        wait_until(lambda: died <= trained_by(two), 200, f"the other one takes over {died}")
        print(f"killed: the other host took over {sorted(died)}")
        one.start_workers(campaign, url)  # and is back, from nothing
        for host in hosts:
            host.process.wait(500)
        print(
            f"\ntwo hosts without a shared disk, one cut off for {CUT_SECONDS} s, then killed; artifacts: {artifacts}"
        )
        campaign.logs = tmp_path / "all logs"
        campaign.logs.mkdir()
        for host in hosts:
            (campaign.logs / f"{host.name}.log").write_text(host.read_logs())
        assert [host.process.returncode for host in hosts] == [0, 0]
        campaign.account(overlaps_allowed=True)
        assert "sesame" not in campaign.read_logs()
        noticed = campaign.read_logs().count("another one has taken it")
        print(f"{noticed} times a worker noticed that its trial was another one's")
    finally:
        for host in hosts:
            host.remove()
        server.remove()
