"""Tests the tests: builds that break one promise on purpose, each of which must turn the suite red.

    services/trial/mutations.py            all of them (each compiles again what depends on the changed crate)
    services/trial/mutations.py epoch      only those whose names contain this

A mutation replaces one text of one file in a scratch copy of the tree, which shares the target folder with the real one. A text that
is not there exactly once is an error, not a pass: bring the mutation up to date.
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "target" / "mutations"
CARGO = os.environ.get("CARGO", "cargo").split()

# Name, file, what stands there, what comes in its place, and what the tests that must notice have in their names.
MUTATIONS = [
    (
        "an entry that comes twice is delivered twice",
        "gateway/src/clients/slot.rs",
        "entries.into_iter().skip(known as usize)",
        "entries.into_iter().skip((known as usize).saturating_sub(1))",
        "an_entry_that_came_twice_is_delivered_once",
    ),
    (
        "a reader that comes back gets its last entry again",
        "gateway/src/door/simple.rs",
        "super::resume(app, account, stream_id, offset).await",
        "super::resume(app, account, stream_id, u32::saturating_sub(offset, 1)).await",
        "simulated_mesh",
    ),
    (
        "a router takes what a replaced leg says",
        "services/router/src/answer/leg.rs",
        "if tokens.epoch != writer.epoch() {",
        "if false {",
        "what_an_old_leg_says_is_not_taken",
    ),
    (
        "a journal takes what a replaced writer says",
        "services/journal/src/journal.rs",
        "if state.epoch != self.epoch {",
        "if false {",
        "a_journal_does_what_its_model_does",
    ),
    (
        "usage is counted twice after a migration",
        "engine-worker/src/answer.rs",
        "completion_tokens: u32::try_from(made).unwrap_or(u32::MAX),",
        "completion_tokens: 2 * u32::try_from(made).unwrap_or(u32::MAX),",
        "simulated_mesh",
    ),
    (
        "a key is begun by every router that it is brought to",
        "services/router/src/router/repeat.rs",
        "Ok(claimed) if claimed.won => Ok(claimed.epoch),",
        "Ok(claimed) => Ok(claimed.epoch),",
        "two_routers",
    ),
    (
        "an answer that goes on in a later epoch looks cancelled to who still reads it",
        "engine-worker/src/service/answers.rs",
        "writer.append(Entry::failed(moved))",
        "writer.append({ drop(moved); Entry::cancelled(proto::v1::Usage::default()) })",
        "a_higher_epoch_ends_the_lower_one",
    ),
    (
        "[DONE] comes after an error at OpenAI's door",
        "gateway/src/door/completions/chunk.rs",
        "Some(Event::Failed(failure)) => error(&error_object(failure), out),",
        'Some(Event::Failed(failure)) => { error(&error_object(failure), out); out.extend_from_slice(b"data: [DONE]\\n\\n"); }',
        "breaks_off",
    ),
]


def write(path: pathlib.Path, content: bytes) -> None:
    """Writes only what differs: cargo goes by the time of the last write."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def copy() -> None:
    """Makes the scratch copy equal to the tree, new files included."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            write(SCRATCH / name, (ROOT / name).read_bytes())


def tests(which: str) -> tuple[list[str], str]:
    """Runs the tests of that name. Says which failed, and all that was printed."""
    command = [*CARGO, "test", "--workspace", "--locked", "--no-fail-fast", which]
    run = subprocess.run(
        command, cwd=SCRATCH, env=os.environ | {"CARGO_TARGET_DIR": str(ROOT / "target")}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    failed = re.findall(r"^test (\S+) \.\.\. FAILED$", run.stdout, re.MULTILINE)
    ran = re.findall(r"^test \S+ \.\.\. ", run.stdout, re.MULTILINE)
    if not failed and (run.returncode != 0 or not ran):
        sys.exit(f"{run.stdout[-4000:]}\nno test of the name {which!r} ran to its end")
    return sorted(set(failed)), run.stdout


def main() -> None:
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    survivors = []
    for name, file, before, after, which in MUTATIONS:
        if only not in name:
            continue
        copy()
        original = (ROOT / file).read_text()
        if original.count(before) != 1:
            sys.exit(f"{name}: {before!r} stands {original.count(before)} times in {file}")
        write(SCRATCH / file, original.replace(before, after).encode())
        failed, _ = tests(which)
        print(f"caught    {name}: {', '.join(failed)}" if failed else f"SURVIVED  {name}", flush=True)
        if not failed:
            survivors.append(name)
    copy()
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
