//! docs/limits.md says what the code does: every limit is in it, with the value that it has and a test that holds it.

use mailrail::Settings;
use mailrail::mime::Limits;
use mailrail::recipe::Cuts;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a table says of a limit.
struct Row {
    name: String,
    /// The file of a constant; empty for a setting.
    place: String,
    value: u64,
    tests: Vec<String>,
}

#[test]
fn every_limit_is_in_the_documentation_with_the_value_that_it_has() {
    let mut told = BTreeMap::new();
    for row in rows().into_iter().filter(|row| !row.place.is_empty()) {
        assert_eq!(told.insert((row.place.clone(), row.name.clone()), row.value), None, "{} is told twice", row.name);
    }
    let found = constants();
    assert!(found.len() > 60, "the constants were not found");
    let missing: Vec<_> = found.iter().filter(|(key, _)| !told.contains_key(*key)).collect();
    assert!(missing.is_empty(), "not in docs/limits.md: {missing:?}");
    let stale: Vec<_> = told.iter().filter(|(key, value)| found.get(*key) != Some(value)).collect();
    assert!(stale.is_empty(), "docs/limits.md says otherwise than the code: {stale:?}");
}

#[test]
fn the_defaults_of_settings_are_as_documented() {
    let (limits, cuts, settings) = (Limits::default(), Cuts::default(), Settings::default());
    let defaults = [
        ("Limits::depth_max", u64::from(limits.depth_max)),
        ("Limits::parts_max", u64::from(limits.parts_max)),
        ("Limits::header_bytes_max", limits.header_bytes_max as u64),
        ("Limits::field_bytes_max", limits.field_bytes_max as u64),
        ("Limits::boundary_bytes_max", limits.boundary_bytes_max as u64),
        ("Cuts::base64_blob_min", cuts.base64_blob_min as u64),
        ("Cuts::verbatim_blob_min", cuts.verbatim_blob_min as u64),
        ("Cuts::literal_run_max", cuts.literal_run_max as u64),
        ("Cuts::piece_max", cuts.piece_max as u64),
        ("Cuts::recipe_max", cuts.recipe_max as u64),
        ("Settings::commit_bytes_max", settings.commit_bytes_max as u64),
        ("Settings::commit_messages_max", u64::from(settings.commit_messages_max)),
        ("Settings::pack_bytes_max", settings.pack_bytes_max as u64),
        ("Settings::recipe_block_bytes", settings.recipe_block_bytes as u64),
    ];
    let told: BTreeMap<_, _> =
        rows().into_iter().filter(|row| row.place.is_empty()).map(|row| (row.name, row.value)).collect();
    assert_eq!(told, defaults.map(|(name, value)| (name.to_owned(), value)).into());
}

#[test]
fn the_tests_that_hold_limits_exist() {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests"] {
        for path in files(&package().join(folder)) {
            let text = fs::read_to_string(path).unwrap();
            let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            names.extend(functions.map(str::to_owned));
        }
    }
    let named: Vec<String> = rows().into_iter().flat_map(|row| row.tests).collect();
    assert!(named.len() > 50);
    let missing: BTreeSet<_> = named.iter().filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// The rows of the tables that are of limits.
fn rows() -> Vec<Row> {
    let text = fs::read_to_string(package().join("docs/limits.md")).unwrap();
    text.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix("| `")?.trim_end_matches('|').split('|').map(str::trim).collect();
    let name = cells[0].trim_end_matches('`').to_owned();
    let is_constant = cells.get(1)?.starts_with("src/");
    let (place, value) = if is_constant { (cells[1], cells.get(2)?) } else { ("", &cells[1]) };
    let tests = cells.last()?.split(", ").filter_map(|test| test.strip_prefix('`')?.strip_suffix('`'));
    let tests = tests.filter(|test| test.contains('_')).map(str::to_owned).collect();
    Some(Row { name, place: place.to_owned(), value: value_of(value)?, tests })
}

/// The value of `4096`, `10_000`, `1 << 20` or `4 * 1024`, whatever words follow.
fn value_of(text: &str) -> Option<u64> {
    let words: Vec<String> = text.split_whitespace().map(|word| word.replace('_', "")).collect();
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    match words.get(1).map(String::as_str) {
        Some("<<") => Some(number(0)? << number(2)?),
        Some("*") => Some(number(0)? * number(2)?),
        _ => number(0),
    }
}

/// The constants whose names end in `_MAX`, by file and name (with the type in front that they belong to), but for those that are other names of others.
fn constants() -> BTreeMap<(String, String), u64> {
    let mut found = BTreeMap::new();
    for path in files(&package().join("src")) {
        let place = path.strip_prefix(package()).unwrap().to_str().unwrap().to_owned();
        let elsewhere = ["src/organisation/", "src/testing/", "src/bin/", "src/fuzzing.rs"];
        if elsewhere.iter().any(|start| place.starts_with(start)) || place.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let product = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let mut owner = "";
        for line in product.lines() {
            if let Some(rest) = line.strip_prefix("impl") {
                let name = rest.rsplit(" for ").next().unwrap().trim_start_matches(|each| each != ' ').trim();
                owner = name.split([' ', '<', '{']).next().unwrap();
            } else if line.starts_with('}') {
                owner = "";
            }
            let Some((_, constant)) = line.split_once("const ") else { continue };
            let Some((name, rest)) = constant.split_once(':') else { continue };
            let value = rest.split_once("= ").and_then(|(_, value)| value_of(value.trim_end_matches(';')));
            if let Some(value) = value.filter(|_| name.ends_with("_MAX")) {
                let in_function = line.starts_with("        ");
                let name = if owner.is_empty() || in_function { name.to_owned() } else { format!("{owner}::{name}") };
                found.insert((place.clone(), name), value);
            }
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
