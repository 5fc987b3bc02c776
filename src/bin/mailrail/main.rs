//! The command `mailrail`: moves mail into a repository, out of it, and looks at what is there. All work is the library's.
#![allow(
    clippy::disallowed_methods,
    reason = "a command lives in real time; the library alone must be able to run without it"
)]

mod approve;
mod arguments;
mod check;
mod compare;
mod demo;
mod failure;
mod forget;
mod interrupt;
mod key;
mod ls;
mod output;
mod place;
mod progress;
mod push;
mod quarantine;
mod recover;
mod repair;
mod repository;
mod restore;
mod secret;
mod stats;
mod sweep;
mod terminal;
mod values;

use arguments::{Arguments, Command, Common};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Everything is as it should be.
    Complete,
    /// It went to its end, and something is not as it should be: the command said what.
    Incomplete,
}

impl Status {
    const fn when(is_complete: bool) -> Self {
        if is_complete { Self::Complete } else { Self::Incomplete }
    }
}

fn main() -> ExitCode {
    let Arguments { common, command } = Arguments::parse();
    match run(&common, command) {
        Ok(Status::Complete) => ExitCode::SUCCESS,
        Ok(Status::Incomplete) => ExitCode::from(3),
        Err(failure) => {
            eprintln!("error: {}", failure.text());
            if common.json {
                // Nothing is left to be done if this fails too.
                let _ = output::print_json(serde_json::json!({ "schema": 1, "error": failure.text() }));
            }
            ExitCode::from(failure.status())
        }
    }
}

fn run(common: &Common, command: Command) -> Result<Status, Failure> {
    // Everything that computes or blocks is on the library's workers; this thread only waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Failure::of("starting the runtime", &source))?;
    let status = runtime.block_on(async {
        match command {
            Command::Push(arguments) => push::run(common, arguments).await,
            Command::Restore(arguments) => restore::run(common, arguments).await,
            Command::Compare(arguments) => compare::run(common, arguments).await,
            Command::Check(arguments) => check::run(common, arguments).await,
            Command::Repair(arguments) => repair::run(common, arguments).await,
            Command::Recover(arguments) => recover::run(common, arguments).await,
            Command::Ls(arguments) => ls::run(common, arguments).await,
            Command::Stats(arguments) => stats::run(common, arguments).await,
            Command::Quarantine(arguments) => quarantine::run(common, arguments).await,
            Command::Approve(arguments) => approve::run(common, arguments).await,
            Command::Key(command) => key::run(common, command).await,
            Command::Forget(arguments) => forget::run(common, arguments).await,
            Command::Sweep(arguments) => sweep::run(common, arguments).await,
            Command::Demo(arguments) => demo::run(common, arguments).await,
        }
    });
    // What still runs on a thread for blocking work is not waited for.
    runtime.shutdown_background();
    status
}
