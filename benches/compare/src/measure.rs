//! One command, measured.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use wait4::Wait4;

/// What a command took. All that it waited for is in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of all processors together, in the program and in the system for it.
    pub cpu: f64,
    /// Octets of memory that were resident at once, at most, in the largest of its processes.
    pub peak: f64,
}

/// Runs a command to its end. What it prints goes to `log`, which is told if it fails.
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
pub fn run(command: &mut Command, log: &Path) -> Result<Cost> {
    let output = File::create(log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let started = Instant::now();
    let child = command.spawn().with_context(|| format!("{command:?}"))?;
    let used = child.wait4()?;
    let wall = started.elapsed().as_secs_f64();
    if !used.status.success() {
        bail!("{command:?}: {}\n{}", used.status, std::fs::read_to_string(log).unwrap_or_default());
    }
    let cpu = (used.rusage.utime + used.rusage.stime).as_secs_f64();
    Ok(Cost { wall, cpu, peak: used.rusage.maxrss as f64 })
}
