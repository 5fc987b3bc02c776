//! The fuzz targets of the public API, run by a plain `cargo test` on their seeds and on every input that they once failed on.
//!
//! Those inputs are `tests/regressions/<target>-<what it was>.<bin or eml>`. Targets that need the crate's insides are replayed in `src/fuzzing.rs`.

// The targets' own files are compiled here, with this crate in the place of libFuzzer's.
extern crate self as libfuzzer_sys;

macro_rules! fuzz_target {
    (|$input:ident: &[u8]| $body:block) => {
        pub(crate) fn run($input: &[u8]) {
            $body
        }
    };
}
pub(crate) use fuzz_target;

#[allow(unused_attributes, unused_imports, reason = "it is a program of its own, elsewhere")]
#[path = "../fuzz/fuzz_targets/base64_shape.rs"]
mod base64_shape;
#[allow(unused_attributes, unused_imports, reason = "it is a program of its own, elsewhere")]
#[path = "../fuzz/fuzz_targets/framer.rs"]
mod framer;
#[allow(unused_attributes, unused_imports, reason = "it is a program of its own, elsewhere")]
#[path = "../fuzz/fuzz_targets/recipe.rs"]
mod recipe;

use std::fs;
use std::path::Path;

#[test]
fn inputs_that_once_failed_in_the_framer_fail_no_more() {
    replay("framer", framer::run);
}

#[test]
fn inputs_that_once_failed_as_base64_fail_no_more() {
    replay("base64_shape", base64_shape::run);
}

#[test]
fn inputs_that_once_failed_in_recipes_fail_no_more() {
    replay("recipe", recipe::run);
}

fn replay(target: &str, run: fn(&[u8])) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut inputs = 0;
    for (folder, start) in [(package.join("fuzz/seeds").join(target), ""), (package.join("tests/regressions"), target)]
    {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(start) {
                println!("{}", entry.path().display());
                run(&fs::read(entry.path()).expect("an input"));
                inputs += 1;
            }
        }
    }
    assert!(inputs > 0, "{target} has no inputs");
}
