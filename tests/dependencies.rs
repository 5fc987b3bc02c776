//! How many crates an embedder takes in by depending on this one. Each is code to trust, to audit and to build: a new one is a decision.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeSet;
use std::process::Command;

/// What a program that uses the default features takes in, macros included:
/// arrayvec, backon, base64-simd, blake3, bytes, cfg-if, constant_time_eq, cpufeatures, equivalent, fastrand, futures, futures-channel,
/// futures-core, futures-io, futures-macro, futures-sink, futures-task, futures-timer, futures-util, getrandom, hashbrown, hashify,
/// indexmap, libc, mail-parser, memchr, outref, pin-project-lite, proc-macro2, quote, ring, slab, syn, tokio, unicode-ident, untrusted,
/// vsimd, zeroize, zstd, zstd-safe, zstd-sys.
///
/// Of syn there are two versions. `mail-parser` alone brings hashify, indexmap, hashbrown and equivalent; backon brings fastrand.
const LINKED: usize = 42;

/// The same, and what only the build scripts of ring, blake3 and zstd-sys need: cc, find-msvc-tools, jobserver, pkg-config, shlex.
const BUILT: usize = 47;

#[test]
fn the_default_build_links_no_more_crates_than_were_decided() {
    hold(LINKED, "normal");
}

#[test]
fn the_default_build_compiles_no_more_crates_than_were_decided() {
    hold(BUILT, "normal,build");
}

fn hold(decided: usize, edges: &str) {
    let Some(crates) = crates(edges) else { return };
    let (count, list) = (crates.len(), crates.into_iter().collect::<Vec<_>>().join(", "));
    assert_eq!(count, decided, "if this is meant, change the number and the list: {list}");
}

/// The crates of the default build without this one; `None` if there is no cargo to ask.
fn crates(edges: &str) -> Option<BTreeSet<String>> {
    let Some(cargo) = std::env::var_os("CARGO") else {
        println!("skipped: cargo is not there to be asked");
        return None;
    };
    let asked = Command::new(cargo)
        .args(["tree", "--offline", "--prefix", "none", "--format", "{p}", "--edges", edges])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output();
    let output = match asked {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: cargo does not start: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout);
    // "name v1.2.3 (proc-macro)": two versions of a crate count as two.
    let crates = lines.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    Some(crates.filter(|name| !name.is_empty() && !name.starts_with("mailrail ")).collect())
}
