//! A thin `main`: settings, telemetry, signals, and the exit code.
//!
//! Exit codes: 0 after a graceful stop, 1 when it could not serve, 64 for a wrong setting (`EX_USAGE` of sysexits.h), 130 after a second signal.

use std::{error::Error, future::Future, process::ExitCode, time::Duration};

use clap::{Args, Parser, error::ErrorKind};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::{
    drain::Drain,
    setting,
    telemetry::{self, LogFormat},
};

/// Settings that every process has.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
#[group(skip)]
pub struct Process {
    /// What to log: a level, or a filter such as `info,router=debug`
    #[arg(long, env = "UNBROKEN_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How log lines look; `auto` is text at a terminal, else JSON
    #[arg(long, env = "UNBROKEN_LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// After SIGTERM, how long running answers may take to finish
    #[arg(long, env = "UNBROKEN_GRACE", default_value = "30s", value_parser = setting::duration, value_name = "TIME")]
    pub grace: Duration,
    /// Threads that serve connections; 0 is as many as suit the service: one for every two cores in a gateway, one elsewhere
    #[arg(long, env = "UNBROKEN_THREADS", default_value_t = 0, value_name = "N")]
    pub threads: usize,
}

impl Process {
    /// A thread for every two cores where no setting says otherwise: for a gateway, with a socket for every client. The kernel's half of
    /// the work, and whoever else is on the machine, have the others.
    #[must_use]
    pub fn or_threads_for_sockets(self) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        self.or_threads((cores / 2).max(1))
    }

    /// So many threads where no setting says otherwise. One carries hundreds of thousands of tokens a second, and every further
    /// one costs wake-ups for each of them: only a gateway, with a socket for every client, gains by more.
    #[must_use]
    pub fn or_threads(mut self, threads: usize) -> Self {
        if self.threads == 0 {
            self.threads = threads;
        }
        self
    }
}

/// Runs a process from its settings to its exit code. `run` serves until the drain begins and returns when nothing is left to
/// finish; `process` finds the common settings among the others.
pub fn main<S, F>(service: &'static str, process: impl FnOnce(&S) -> Process, run: impl FnOnce(S, Drain) -> F) -> ExitCode
where
    S: Parser,
    F: Future<Output = Result<(), Box<dyn Error + Send + Sync>>>,
{
    let settings = match S::try_parse() {
        Ok(settings) => settings,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(setting::EX_USAGE)
            };
        }
    };
    let process = process(&settings);
    // One thread is one loop: no queue between threads, and no wake-up from one to the other.
    let mut runtime = match process.threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if process.threads > 1 {
        runtime.worker_threads(process.threads);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let telemetry = {
        let _inside = runtime.enter();
        match telemetry::start(service, &process.log, process.log_format) {
            Ok(telemetry) => telemetry,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(setting::EX_USAGE);
            }
        }
    };
    let drain = Drain::new();
    let served = runtime.block_on(async {
        on_signals(drain.clone())?;
        run(settings, drain).await
    });
    telemetry.flush();
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

/// One clear line, with its causes.
fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let text = source.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = source.source();
    }
    eprintln!("error: {line}");
    if error.is::<WrongSetting>() {
        ExitCode::from(setting::EX_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// A service's own error, of which the exit code depends.
pub trait Fault: Error + Send + Sync + Sized + 'static {
    /// Whether the operator has to change a setting: the process exits with 64 then.
    fn is_of_setting(&self) -> bool;

    /// Itself, with its verdict.
    fn judged(self) -> Box<dyn Error + Send + Sync> {
        if self.is_of_setting() {
            WrongSetting(self.into()).into()
        } else {
            self.into()
        }
    }
}

/// A setting that clap could not judge by itself.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct WrongSetting(Box<dyn Error + Send + Sync>);

/// The first SIGTERM or SIGINT begins the drain, the second ends the process at once.
fn on_signals(drain: Drain) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
        next().await;
        tracing::info!("stopping: finishing what runs; a second signal stops at once");
        drain.begin();
        next().await;
        std::process::exit(130);
    });
    Ok(())
}
