//! The same mesh code in one thread, over pipes in memory and on a clock that jumps: two gateways, two routers, three workers and a
//! store that only remembers. A seed draws what goes wrong and when; the clients' histories and the mesh's aftermath are judged
//! as those of real processes are.
//!
//! A second of the mesh takes milliseconds, so a run tries many seeds. What a seed does not decide is the order in which tasks that
//! are ready at the same moment run: one that fails may have to be run a few times to fail again.
//!
//! `UNBROKEN_SEED=17 cargo test --workspace --test it simulated` runs one seed and says what was done; `UNBROKEN_SEEDS=500` so many.

mod fault;
mod keys;
mod late;
mod mesh;
mod network;
mod positions;
mod store;

use std::{env, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use tokio::time::{sleep, timeout};
use trial::{
    aftermath,
    client::{self, Ask, Door},
    history::History,
    random::Random,
};

use self::{fault::Fault, mesh::Mesh};

/// Answers that stream at once.
const ANSWERS: usize = 12;
/// No seed takes longer, on the clock of the mesh.
const PATIENCE: Duration = Duration::from_mins(5);
/// Seeds of a short run.
const SEEDS: u64 = 50;

/// Runs `what` to its end on a mesh of its own, on a clock of its own.
pub(crate) fn on_a_mesh<T>(what: impl AsyncFnOnce(&mut Mesh) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let mut mesh = Mesh::start().await;
        timeout(PATIENCE, what(&mut mesh)).await.expect("the mesh came to an end in time")
    });
    chassis::channel::dial_with(None);
    outcome
}

/// A crowd of answers, something that goes wrong meanwhile, and the judgement. Says what was done, and what was violated.
async fn trial_of(mesh: &mut Mesh, seed: u64) -> (Vec<String>, Vec<String>) {
    let mut random = Random::new(seed);
    let mut told = vec![mesh.unsettle(&mut random)];
    let mut clients = Vec::new();
    for number in 0..ANSWERS {
        let ask = Ask {
            door: if number % 2 == 0 { Door::Simple } else { Door::Completions },
            id: format!("s{seed}-{number}"),
            tokens: 20 + u32::try_from(random.below(60)).unwrap(),
            gap: Duration::from_millis(1 + random.below(40)),
            conversation: Some(aftermath::conversation(mesh.store()).await.unwrap()),
            begun: Arc::default(),
        };
        let wait = Duration::from_millis(random.below(600));
        let gateways = mesh.gateways();
        let tokens = ask.tokens;
        clients.push((
            tokens,
            tokio::spawn(async move {
                sleep(wait).await;
                client::read(gateways, ask).await
            }),
        ));
    }
    for _ in 0..=random.below(2) {
        sleep(Duration::from_millis(random.below(900))).await;
        let fault = Fault::draw(&mut random);
        told.push(fault.strike(mesh, &mut random).await);
        sleep(Duration::from_secs(3)).await; // one at a time: all see each other again
    }
    let (tokens, clients): (Vec<u32>, Vec<_>) = clients.into_iter().unzip();
    let histories: Vec<History> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    let mut violations = Vec::new();
    let deadline = aftermath::deadline();
    for (history, tokens) in histories.iter().zip(tokens) {
        let verdict = match history.check(tokens) {
            Ok(()) => aftermath::stored(&mesh.store(), history, deadline).await,
            Err(violation) => Err(violation),
        };
        violations.extend(verdict.err());
    }
    violations.extend(aftermath::settled(&mesh.routers()).await.err());
    violations.extend(mesh.kept().twice());
    (told, violations)
}

/// Runs one seed. A panic anywhere in the mesh is a violation too.
fn run(seed: u64) -> (Vec<String>, Vec<String>) {
    let outcome =
        std::panic::catch_unwind(|| on_a_mesh(async |mesh: &mut Mesh| AssertUnwindSafe(trial_of(mesh, seed)).catch_unwind().await));
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) | Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            (Vec::new(), vec![format!("panic: {words}")])
        }
    }
}

#[test]
fn no_token_is_lost_or_doubled_whatever_a_seed_does_to_the_simulated_mesh() {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}: {text} is no number")))
    };
    let seeds = match number("UNBROKEN_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("UNBROKEN_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    // Two at a time: a mesh is one thread.
    let failed: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|half| {
                let seeds: Vec<u64> = seeds.iter().copied().skip(half).step_by(2).collect();
                scope.spawn(move || {
                    let outcomes = seeds.into_iter().map(|seed| (seed, run(seed)));
                    let failed = outcomes.filter(|(_, (_, violations))| !violations.is_empty());
                    let said = failed.map(|(seed, (told, violations))| {
                        let text = format!("UNBROKEN_SEED={seed}: {}\n  {}", told.join("; "), violations.join("\n  "));
                        eprintln!("{text}");
                        text
                    });
                    said.collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed:\n{}",
        failed.len(),
        seeds.len(),
        failed.join("\n")
    );
}
