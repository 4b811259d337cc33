#!/usr/bin/env bash
# TPE with constant_liar reads every running trial again for each group of parameters that it draws, not once a trial.
#
# constant_liar=True is what one sets for many parallel workers, and one expects it to cost one look at what the others
# are doing when a trial begins. In a space without branches that is so. With group=True and parameters that exist in
# one branch only (an optimizer with its own momentum), the joint space falls into many groups, and for each of them the
# sampler asks the storage for the trials anew, passing over the cache that it uses without constant_liar. A database
# then returns each trial that is running with all its parameters, attributes and reports, every time: the cost of
# drawing one recipe grows with workers times groups, and nobody suspects the sampler, because a study with few workers or
# with finished trials only is fast.
#
# What it means: with dozens of workers on one database, ask within something that reads the trials once (automl's
# storage does while a recipe is drawn), or draw in another process than the one that trains. A profile of a single
# worker does not show it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "optuna==5.0.0" "sqlalchemy==2.1.9"
cat > "$work/count.py" <<'PYTHON'
import random
import tempfile
import warnings

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import event

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
print("optuna", optuna.__version__)
built = 0
build = RDBStorage._build_frozen_trial_from_trial_model


def count_built(self, trial):
    global built
    built += 1
    return build(self, trial)


RDBStorage._build_frozen_trial_from_trial_model = count_built


def draw(trial, branches):
    for k in range(branches):
        kind = trial.suggest_categorical(f"choice{k}", ["a", "b", "c"])
        trial.suggest_float(f"choice{k}.{kind}.x", 0, 1)


def measure(constant_liar, running, branches):
    """Statements and trials read from the database while one recipe is drawn."""
    global built
    with tempfile.TemporaryDirectory() as folder:
        sampler = optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=constant_liar, n_startup_trials=5, seed=0
        )
        study = optuna.create_study(storage=f"sqlite:///{folder}/study.db", sampler=sampler)
        values = random.Random(0)
        for _ in range(30):
            trial = study.ask()
            draw(trial, branches)
            study.tell(trial, values.random())
        for _ in range(running):
            draw(study.ask(), branches)
        statements = []
        engine = study._storage._backend.engine
        event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        trial = study.ask()
        statements.clear()
        built = 0
        draw(trial, branches)
        return len(statements), built


few = {liar: measure(liar, 16, 2) for liar in (False, True)}
many = {liar: measure(liar, 16, 10) for liar in (False, True)}
more = measure(True, 48, 10)
print("beside 16 running trials, one recipe of 4 parameters (statements, trials read):", few)
print("beside 16 running trials, one recipe of 20 parameters:", many)
print("beside 48 running trials, one recipe of 20 parameters, constant_liar:", more)
assert many[False][1] <= 17, "without constant_liar the trials are read once"
assert many[True][1] >= 20 * many[False][1], "constant_liar no longer reads them for each group"
assert many[True][1] > 2 * few[True][1], "the reads no longer grow with the branches"
assert more[1] > 2.5 * many[True][1], "the reads no longer grow with the running trials"
PYTHON
"$work/venv/bin/python" "$work/count.py"
# Seen with Optuna 5.0.0:
#   beside 16 running trials, one recipe of 4 parameters (statements, trials read): {False: (15, 17), True: (66, 136)}
#   beside 16 running trials, one recipe of 20 parameters: {False: (47, 17), True: (266, 544)}
#   beside 48 running trials, one recipe of 20 parameters, constant_liar: (266, 1568)
