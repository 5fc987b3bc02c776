//! Interrupts (SIGINT, Ctrl-C).

use crate::failure::Failure;
use std::process;

/// The exit status of a process ended by an interrupt, as shells have it: 128 and the number of the signal.
const INTERRUPTED: i32 = 130;

/// Listens for interrupts from now on. What it gives resolves with the first; the second ends the process at once.
pub(crate) fn first() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut signal = listen().map_err(|source| Failure::of("listening for interrupts", &source))?;
    Ok(async move {
        signal.recv().await;
        tokio::spawn(async move {
            signal.recv().await;
            process::exit(INTERRUPTED);
        });
    })
}

#[cfg(unix)]
fn listen() -> std::io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(windows)]
fn listen() -> std::io::Result<tokio::signal::windows::CtrlC> {
    tokio::signal::windows::ctrl_c()
}
