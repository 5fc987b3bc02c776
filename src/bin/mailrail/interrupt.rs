//! Interrupts (SIGINT, Ctrl-C).

use crate::failure::Failure;
use std::future::pending;
use std::{io, process, thread};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// The exit status of a process ended by an interrupt, as shells have it: 128 and the number of the signal.
const INTERRUPTED: i32 = 130;

/// Listens for interrupts from now on. What it gives resolves with the first; the second ends the process at once.
pub(crate) fn first() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let failed = |source: io::Error| Failure::of("listening for interrupts", &source);
    // On a thread of its own, so that the second is heard whatever the others wait for.
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signal = {
        let _context = runtime.enter();
        listen().map_err(failed)?
    };
    let (sender, receiver) = oneshot::channel();
    let hear = move || {
        runtime.block_on(async {
            signal.recv().await;
            // Nobody may be interested any more.
            let _ = sender.send(());
            signal.recv().await;
        });
        process::exit(INTERRUPTED);
    };
    thread::Builder::new().name("interrupts".into()).spawn(hear).map_err(failed)?;
    Ok(async {
        if receiver.await.is_err() {
            // The thread is gone: there is nothing to be heard.
            pending::<()>().await;
        }
    })
}

#[cfg(unix)]
fn listen() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(windows)]
fn listen() -> io::Result<tokio::signal::windows::CtrlC> {
    tokio::signal::windows::ctrl_c()
}
