//! The house stays a house: rooms know only rooms below them, and none of them grows beyond what can be read.
//!
//! A room is a module directly under `src/`. `src/lib.rs` and the command under `src/bin` see all of them; test modules may, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up: each may name those before it. A new room is put where its uses allow, as low as possible.
const ROOMS: &[&str] = &[
    "error",
    "wire",
    "digest",
    "lock",
    "runtime",
    "budget",
    "message",
    "mime",
    "recipe",
    "seal",
    "store",
    "pack",
    "index",
    "settings",
    "resources",
    "source",
    "sink",
    "ledger",
    "repository",
    "transfer",
    "restore",
    "reading",
    "check",
    "repair",
    "compare",
    "sweep",
    "engine",
    "organisation",
    "testing",
    "bench",
    "fuzzing",
];

/// The most lines in a file; test modules and blank lines are not counted.
const LINES_MAX: usize = 700;

#[test]
fn rooms_name_only_rooms_below_them() {
    let root_names = root_names(&source("src/lib.rs"));
    let mut wrong = Vec::new();
    for file in files() {
        let text = product_code(&source(&file.path));
        for (line, name) in names_from_root(&text, file.depth) {
            let named = root_names.get(&name).unwrap_or(&name);
            if let Err(reason) = may_name(&file.room, named) {
                wrong.push(format!("{}:{line}: {reason}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_list() {
    let mut rooms: Vec<String> = files().into_iter().map(|file| file.room).collect();
    rooms.dedup();
    rooms.retain(|room| height(room).is_none());
    assert!(rooms.is_empty(), "not in ROOMS: {rooms:?}");
}

#[test]
fn no_file_grows_beyond_what_can_be_read() {
    let lines = |file: &SourceFile| product_code(&source(&file.path)).lines().filter(|line| !line.is_empty()).count();
    let long: Vec<_> =
        files().iter().map(|file| (file.path.clone(), lines(file))).filter(|(_, lines)| *lines > LINES_MAX).collect();
    assert!(long.is_empty(), "files of more than {LINES_MAX} lines: {long:?}");
}

#[test]
fn a_name_from_a_room_above_is_seen_in_any_form() {
    let root_names = root_names("pub use transfer::{Transfer, outcome::Outcome as Settled};\n");
    assert_eq!(root_names["Transfer"], "transfer");
    assert_eq!(root_names["Settled"], "transfer");
    let seen = |text: &str, depth| -> Vec<(usize, String)> { names_from_root(&product_code(text), depth) };
    assert_eq!(seen("use crate::pack::Row;\n", 1), [(1, "pack".into())]);
    assert_eq!(seen("\nlet a = crate::pack::f(crate::seal::g());\n", 1), [(2, "pack".into()), (2, "seal".into())]);
    assert_eq!(
        seen("use crate::{\n    pack::{Row, Location},\n    store,\n};\n", 1),
        [(1, "pack".into()), (1, "store".into())]
    );
    assert_eq!(seen("use super::pack;\n", 1), [(1, "pack".into())]);
    assert_eq!(seen("use super::pack;\n", 2), []);
    assert_eq!(seen("use super::super::pack;\n", 2), [(1, "pack".into())]);
    assert_eq!(seen("/// See [`crate::pack`].\nlet a = 1; // crate::pack\n", 1), []);
    assert_eq!(
        seen("#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::pack;\n}\nuse crate::seal;\n", 1),
        [(6, "seal".into())]
    );
    assert!(may_name("pack", "seal").is_ok());
    assert!(may_name("seal", "pack").is_err());
    assert!(may_name("seal", "cellar").is_err());
}

struct SourceFile {
    /// Relative to the package.
    path: String,
    room: String,
    /// How many modules deep it is: 1 for a room itself.
    depth: usize,
}

/// The files of all rooms, but those that are tests as a whole.
fn files() -> Vec<SourceFile> {
    let mut paths = Vec::new();
    walk(&package().join("src"), &mut paths);
    paths.sort();
    let files: Vec<_> = paths.iter().filter_map(|path| source_file(path)).collect();
    assert!(files.len() > 10, "the sources were not found");
    files
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry of a directory of sources").path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn source_file(path: &Path) -> Option<SourceFile> {
    let inside = path.strip_prefix(package().join("src")).expect("a path under src");
    let mut modules: Vec<&str> = inside.iter().filter_map(|name| name.to_str()).collect();
    let file = modules.pop()?.strip_suffix(".rs")?;
    if file != "mod" {
        modules.push(file);
    }
    let exempt = matches!(modules.first(), Some(&"lib" | &"bin"));
    let is_test = modules.iter().any(|module| *module == "tests" || module.ends_with("_tests"));
    if exempt || is_test {
        return None;
    }
    let path = Path::new("src").join(inside).to_str()?.to_owned();
    Some(SourceFile { path, room: (*modules.first()?).to_owned(), depth: modules.len() })
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(path: impl AsRef<Path>) -> String {
    fs::read_to_string(package().join(path)).expect("a source file")
}

/// A source text without comments and without what is compiled for tests only. Lines keep their numbers.
fn product_code(text: &str) -> String {
    let mut out = String::new();
    // The indentation of the item that is being left out.
    let mut skipped: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let code = line.split("//").next().unwrap_or_default().trim_end();
        if code.trim_start().starts_with("#[cfg(test)]") {
            skipped = Some(indent);
        } else if let Some(at) = skipped {
            if indent == at && (code.ends_with(';') || code.ends_with('}')) {
                skipped = None;
            }
        } else if line.trim_start().starts_with("//") || line.trim().is_empty() {
            // A comment counts as a line, but names nothing.
            out.push_str(if line.trim().is_empty() { "" } else { "//" });
        } else {
            out.push_str(code);
        }
        out.push('\n');
    }
    out
}

/// The names that follow `crate::`, or enough `super::` to come to the root, with their lines.
fn names_from_root(text: &str, depth: usize) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in text.match_indices(&root) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|before| before.is_alphanumeric() || "_:$".contains(before)) {
                continue;
            }
            let line = text[..at].matches('\n').count() + 1;
            let mut first = first_names(&text[at + root.len()..]);
            first.retain(|name| name != "super" && name != "self");
            names.extend(first.into_iter().map(|name| (line, name)));
        }
    }
    names
}

/// The first name of a path, or the first names of a group of paths.
fn first_names(path: &str) -> Vec<String> {
    let name = |path: &str| -> String {
        path.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = Vec::new();
    let (mut open, mut start) = (1, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 || (open == 1 && letter == ',') {
            names.push(name(&group[start..at]));
            start = at + 1;
        }
        if open == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What `src/lib.rs` shows at the root, and which room it is from.
fn root_names(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (at, start) in lib.match_indices("pub use ") {
        let path = lib[at + start.len()..].split(';').next().unwrap_or_default();
        let room = path.split("::").next().unwrap_or_default().to_owned();
        for shown in path.trim_end_matches('}').split(['{', ',']) {
            let shown = shown.rsplit("::").next().unwrap_or_default().trim();
            let shown = shown.rsplit(" as ").next().unwrap_or_default().trim_matches(['}', ' ', '\n']);
            names.insert(shown.to_owned(), room.clone());
        }
    }
    names
}

fn height(room: &str) -> Option<usize> {
    ROOMS.iter().position(|known| *known == room)
}

fn may_name(room: &str, named: &str) -> Result<(), String> {
    if room == named {
        return Ok(());
    }
    match (height(room), height(named)) {
        (Some(own), Some(other)) if other < own => Ok(()),
        (Some(_), Some(_)) => Err(format!("`{room}` names `{named}`, which is above it")),
        (Some(_), None) => Err(format!("`{room}` names `{named}`, which is no room in the list")),
        (None, _) => Err(format!("`{room}` is no room in the list")),
    }
}
