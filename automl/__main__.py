"""`python -m automl` is `automl`."""

from automl.cli.main import run

if __name__ == "__main__":
    run()
