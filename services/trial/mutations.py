"""Tests the tests: builds that break one promise on purpose, each of which must turn the suite red.

    services/trial/mutations.py            all of them
    services/trial/mutations.py epoch      only those whose names contain this

What is tried is the last commit, in a scratch copy of it, which shares the target folder with the tree (another one: CARGO_TARGET_DIR).
So the tree itself is never changed, and may be worked on meanwhile; uncommitted changes are refused at the start, because they would not be
in the copy. First all tests that must notice run on the commit as it is, and must pass. Then one mutation after the other replaces one
text of one file. A text that is not there exactly once is an error, not a pass: bring the mutation up to date. Mutations of different crates
share a build: the tests that must notice are each crate's own, so that none of them runs more than one.

What was built of the copy is taken out of the target folder at the end. Then stands a table. The exit status is 0 only if every mutation compiled and was caught.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "target" / "mutations"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CARGO = os.environ.get("CARGO", "cargo").split()
# Seconds after which a build with its tests is given up: some minutes are usual, also where all is compiled anew.
MOST_SECONDS = 3600
# What is built: the tests beside the code, or those in tests/it. Of the whole workspace, since one crate by itself has other features, and all
# that it depends on would be compiled again; only the journal depends on next to nothing, and all else on it.
LIB, IT = ("--workspace", "--lib"), ("--workspace", "--test", "it")
JOURNAL = ("--package", "journal", "--test", "it")


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One text of one file, what comes in its place, and the tests that must notice."""

    name: str
    file: str
    before: str
    after: str
    build: tuple[str, ...]
    tests: str
    """What the tests that must notice have in their names, modules included. They are the changed crate's own, and run no other that is changed."""

    @property
    def crate(self) -> str:
        """The folder of the changed crate."""
        return self.file.split("/src/")[0]


MUTATIONS = [
    Mutation(
        "an entry that comes twice is delivered twice",
        "gateway/src/clients/slot.rs",
        "entries.into_iter().skip(known as usize)",
        "entries.into_iter().skip((known as usize).saturating_sub(1))",
        LIB,
        "an_entry_that_came_twice_is_delivered_once",
    ),
    Mutation(
        "a router takes what a replaced leg says",
        "services/router/src/answer/leg.rs",
        "if tokens.epoch != writer.epoch() {",
        "if false {",
        LIB,
        "what_an_old_leg_says_is_not_taken",
    ),
    Mutation(
        "a journal takes what a replaced writer says",
        "services/journal/src/writer.rs",
        "if state.epoch != self.epoch {",
        "if false {",
        JOURNAL,
        "a_journal_does_what_its_model_does",
    ),
    Mutation(
        "usage is counted twice after a migration",
        "engine-worker/src/answer.rs",
        "completion_tokens: u32::try_from(made).unwrap_or(u32::MAX),",
        "completion_tokens: 2 * u32::try_from(made).unwrap_or(u32::MAX),",
        IT,
        "a_higher_epoch_ends_the_lower_one",
    ),
    Mutation(
        "[DONE] comes after an error at OpenAI's door",
        "gateway/src/door/completions/chunk.rs",
        "Some(Event::Failed(failure)) => error(&error_object(failure), out),",
        'Some(Event::Failed(failure)) => { error(&error_object(failure), out); out.extend_from_slice(b"data: [DONE]\\n\\n"); }',
        IT,
        "an_answer_that_breaks_off_ends_with_an_error_and_without_done",
    ),
    Mutation(
        "an answer that was stored as failed stays so, though it turns out to be whole",
        "services/conversation-store/src/database/batch.rs",
        "NOT (r.state = 'failed' AND t.state = 'finished' AND r.epoch <= t.epoch)",
        "r.epoch >= 0",
        IT,
        "a_failure_gives_way_to_the_whole_answer",
    ),
    Mutation(
        "the first of two ends counts, also if the later one is in a later epoch",
        "services/conversation-store/src/store/finish.rs",
        "rank(turn) > rank(first.1)",
        "rank(turn) < rank(first.1)",
        IT,
        "of_two_ends_in_one_batch_the_later_epoch_counts",
    ),
    Mutation(
        "a reader that comes back gets its last entry again",
        "gateway/src/door/simple.rs",
        "super::resume(app, account, stream_id, offset).await",
        "super::resume(app, account, stream_id, u32::saturating_sub(offset, 1)).await",
        IT,
        "the_token_door_replays_the_same_bytes",
    ),
    Mutation(
        "a key is begun by every router that it is brought to",
        "services/router/src/router/repeat.rs",
        "Ok(claimed) if claimed.won => Ok(claimed.epoch),",
        "Ok(claimed) => Ok(claimed.epoch),",
        IT,
        "of_two_routers_that_are_brought_one_key",
    ),
    Mutation(
        "an answer that goes on in a later epoch looks cancelled to who still reads it",
        "engine-worker/src/service/answers.rs",
        "writer.append(Entry::failed(moved))",
        "writer.append({ drop(moved); Entry::cancelled(proto::v1::Usage::default()) })",
        IT,
        "a_higher_epoch_ends_the_lower_one",
    ),
]


def write(path: pathlib.Path, content: bytes) -> None:
    """Writes only what differs: cargo goes by the time of the last write."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def commit() -> dict[str, bytes]:
    """All files of the last commit.

    Exits if the tree has changes that are not in it.
    """
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    if changed:
        sys.exit(f"what is tried is the last commit; commit or stash these first:\n{changed}")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        return {member.name: files.extractfile(member).read() for member in files if member.isfile()}


def restore(files: dict[str, bytes]) -> None:
    """Makes the scratch copy equal to the commit again, without what a failing test has left there."""
    for name, content in files.items():
        write(SCRATCH / name, content)
    for path in SCRATCH.rglob("*"):
        if path.is_file() and str(path.relative_to(SCRATCH)) not in files:
            path.unlink()


@contextlib.contextmanager
def scratch(files: dict[str, bytes]) -> Iterator[None]:
    """A scratch copy that is as the commit before and after, also if the script is stopped (Ctrl-C, SIGTERM)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    restore(files)
    try:
        yield
    finally:
        restore(files)
        # Cargo would take what was built of the copy for the tree's own, and overlook what changes there.
        subprocess.run([*CARGO, "clean", "--workspace", "--profile", "dev"], cwd=ROOT, env=os.environ | {"CARGO_TARGET_DIR": str(TARGET)}, check=False)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a build and its tests came to."""

    compiled: bool
    passed: list[str]
    failed: list[str]
    printed: str


def run(build: tuple[str, ...], tests: list[str]) -> Run:
    """Builds the scratch copy and runs the tests that have one of these in their names."""
    command = [*CARGO, "test", "--locked", "--no-fail-fast", *build]
    within = {"cwd": SCRATCH, "env": os.environ | {"CARGO_TARGET_DIR": str(TARGET)}, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    printed = ""
    for step in ([*command, "--no-run"], [*command, "--", *tests]):
        # A session of its own, so that what cargo has started ends with it.
        with subprocess.Popen(step, **within, start_new_session=True) as cargo:
            try:
                printed, _ = cargo.communicate(timeout=MOST_SECONDS)
            except subprocess.TimeoutExpired:
                sys.exit(f"{' '.join(step)} did not end within {MOST_SECONDS} s")
            finally:
                if cargo.poll() is None:
                    os.killpg(cargo.pid, signal.SIGTERM)
        if step[-1] == "--no-run" and cargo.returncode != 0:
            return Run(compiled=False, passed=[], failed=[], printed=printed)
    outcomes = dict(re.findall(r"^test (\S+)(?: - should panic)? \.\.\. .*?\b(ok|FAILED)$", printed, re.MULTILINE))
    return Run(
        compiled=True,
        passed=sorted(test for test, outcome in outcomes.items() if outcome == "ok"),
        failed=sorted(test for test, outcome in outcomes.items() if outcome == "FAILED"),
        printed=printed,
    )


def unmutated(mutations: list[Mutation]) -> None:
    """Exits unless each mutation has a test, and all of them pass on the commit as it is."""
    for build in dict.fromkeys(mutation.build for mutation in mutations):
        wanted = sorted({mutation.tests for mutation in mutations if mutation.build == build})
        outcome = run(build, wanted)
        if not outcome.compiled or outcome.failed:
            sys.exit(f"{outcome.printed[-4000:]}\nwithout any mutation, the tests do not pass")
        for tests in wanted:
            if not any(tests in test for test in outcome.passed):
                sys.exit(f"{outcome.printed[-4000:]}\nno test has {tests!r} in its name")


def groups(mutations: list[Mutation]) -> list[list[Mutation]]:
    """Those that share a build: of different crates."""
    grouped: list[list[Mutation]] = []
    for mutation in mutations:
        for group in grouped:
            if all(other.build == mutation.build and other.crate != mutation.crate for other in group):
                group.append(mutation)
                break
        else:
            grouped.append([mutation])
    return grouped


def mutated(group: list[Mutation], files: dict[str, bytes]) -> list[tuple[str, str]]:
    """Tries mutations in the scratch copy, all in one build. Says of each how it went, and by which tests."""
    for mutation in group:
        path = SCRATCH / mutation.file
        write(path, path.read_text().replace(mutation.before, mutation.after).encode())
    outcome = run(group[0].build, [mutation.tests for mutation in group])
    restore(files)
    if not outcome.compiled and len(group) > 1:
        return [one for mutation in group for one in mutated([mutation], files)]
    by = [", ".join(test for test in outcome.failed if mutation.tests in test) for mutation in group]
    if not all(by):
        print(outcome.printed[-4000:], flush=True)
    missed = "SURVIVED" if outcome.compiled else "DOES NOT COMPILE"
    return [("caught" if tests else missed, tests) for tests in by]


def main() -> None:
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    mutations = [mutation for mutation in MUTATIONS if only in mutation.name]
    if not mutations:
        sys.exit(f"no mutation has {only!r} in its name")
    files = commit()
    for mutation in mutations:
        is_there = files.get(mutation.file, b"").decode().count(mutation.before)
        if is_there != 1:
            sys.exit(f"{mutation.name}: {mutation.before!r} stands {is_there} times in {mutation.file}")
    rows = []
    with scratch(files):
        began = time.monotonic()
        unmutated(mutations)
        print(f"passed    without any mutation ({time.monotonic() - began:.0f} s)", flush=True)
        for group in groups(mutations):
            began = time.monotonic()
            outcomes = mutated(group, files)
            seconds = (time.monotonic() - began) / len(group)
            for mutation, (outcome, tests) in zip(group, outcomes, strict=True):
                rows.append((mutation.name, outcome, tests, seconds))
                print(f"{outcome:9} {mutation.name}: {tests} ({seconds:.0f} s)", flush=True)
    print("\n| mutation | outcome | by | s |\n|---|---|---|---:|")
    for name, outcome, tests, seconds in rows:
        print(f"| {name} | {outcome} | {tests} | {seconds:.0f} |")
    sys.exit(any(outcome != "caught" for _, outcome, _, _ in rows))


if __name__ == "__main__":
    main()
