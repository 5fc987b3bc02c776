//! Profiles in `~/.aws/config` and `~/.aws/credentials`.

use super::StoreOptions;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the files say of one profile.
pub(super) type Profile = BTreeMap<String, String>;

/// What a profile may ask for that takes another program, or another request, to get: we have neither.
const BEYOND_US: [&str; 5] =
    ["sso_session", "sso_start_url", "credential_process", "source_profile", "credential_source"];

/// Reads a profile. One that was asked for by name (`is_wanted`) must be there, and of use.
pub(super) fn read(options: &StoreOptions, name: &str, is_wanted: bool) -> Result<Profile> {
    let file = |variable: &str, usual: &str| -> Option<PathBuf> {
        let named = options.get_variable(variable).map(PathBuf::from);
        named.or_else(|| Some(Path::new(options.get_variable("HOME")?).join(usual)))
    };
    let config = sections(file("AWS_CONFIG_FILE", ".aws/config"))?;
    let credentials = sections(file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"))?;
    let is_known = config.iter().chain(&credentials).any(|(section, ..)| is_of(section, name));
    if is_wanted && !is_known {
        return Err(Error::invalid(format!(
            "there is no profile '{}' in ~/.aws/config or ~/.aws/credentials",
            name.escape_debug()
        )));
    }
    let mut profile = Profile::new();
    // The credentials file goes before the other, by coming behind it.
    for (section, key, value) in config.into_iter().chain(credentials) {
        if is_of(&section, name) {
            profile.insert(key, value);
        }
    }
    let beyond = BEYOND_US.iter().find(|key| profile.contains_key(**key));
    match beyond {
        Some(key) if is_wanted && !profile.contains_key("aws_access_key_id") => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the profile '{}' needs {key}, which is not supported: give keys in the environment (aws configure export-credentials prints them)",
                name.escape_debug()
            ),
        )),
        _ => Ok(profile),
    }
}

fn is_of(section: &str, name: &str) -> bool {
    section == name || section.strip_prefix("profile ").is_some_and(|profile| profile.trim() == name)
}

/// Each key and its value, with the section that it is in. What is indented belongs to the key above, and to other programs.
fn sections(path: Option<PathBuf>) -> Result<Vec<(String, String, String)>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("reading '{}'", path.display()), error)),
    };
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t', '#', ';'])) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.trim().clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=') {
            found.push((section.clone(), key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    Ok(found)
}
