"""Coverage-guided fuzzing of opening in suite 2: `python -m tests.fuzz.fuzz_hybrid [libFuzzer options] [corpus]`."""

from tests.fuzz.run import run

if __name__ == "__main__":
    run("hybrid")
