"""Coverage-guided fuzzing of key files: `python -m tests.fuzz.fuzz_keyring [libFuzzer options] [corpus]`."""

from tests.fuzz.run import run

if __name__ == "__main__":
    run("keyring")
