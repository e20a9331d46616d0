"""Coverage-guided fuzzing of opening: `python -m tests.fuzz.fuzz_open [libFuzzer options] [corpus]`."""

from tests.fuzz.run import run

if __name__ == "__main__":
    run("open")
