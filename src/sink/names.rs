//! Names that come from afar, made harmless before they become paths.
//!
//! A name that is harmless as it stands stays as it is, always: so a tree comes back under its own names. Any other gets a *made* name:
//! what is readable of it, `=`, and 32 hexadecimal digits of a BLAKE3 digest over all of it. Made names are the same on every run, so a repeated
//! restore finds what it left. A made name could only meet a name that somebody wrote to look like it; [`Taken`] sees that and makes another.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

/// The longest name of a file, in octets, that common file systems take.
pub(super) const NAME_OCTETS_MAX: usize = 255;

/// The longest path below the target that is created, in octets. Linux takes 4,096 for a whole path.
pub(super) const PATH_OCTETS_MAX: usize = 3072;

const READABLE_OCTETS_MAX: usize = 100;
const EXTENSION_OCTETS_MAX: usize = 8;
const HEX_DIGITS: usize = 32;

/// Whether a file can have this name, inside the directory that it is created in.
pub(super) fn is_harmless(name: &[u8]) -> bool {
    let is_sound = !name.is_empty() && name.len() <= NAME_OCTETS_MAX && name != b"." && name != b"..";
    is_sound && !name.iter().any(|&octet| octet == b'/' || octet == 0) && is_native(name)
}

#[cfg(unix)]
fn is_native(_name: &[u8]) -> bool {
    true
}

/// Elsewhere names must be UTF-8 and keep clear of what Windows gives a meaning to.
#[cfg(not(unix))]
fn is_native(name: &[u8]) -> bool {
    let is_plain = |octet: &u8| *octet >= 32 && !br#"<>:"\|?*"#.contains(octet);
    std::str::from_utf8(name).is_ok() && name.iter().all(is_plain) && !matches!(name.last(), Some(b'.' | b' '))
}

/// Whether a name looks like a made one, so that only [`Taken`] can tell them apart.
pub(super) fn looks_made(name: &[u8]) -> bool {
    memchr::memchr_iter(b'=', name).any(|at| {
        let digits = name.iter().skip(at + 1);
        digits.take_while(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f')).take(HEX_DIGITS).count() == HEX_DIGITS
    })
}

/// The harmless name number `attempt` for `input`; a short extension (`.eml`) is kept at its end. At most 142 octets long.
pub(super) fn made(input: &[u8], attempt: u32) -> Vec<u8> {
    let (stem, extension) = split_extension(input);
    let mut name: Vec<u8> = stem.iter().skip_while(|octet| **octet == b'.').copied().map(readable).collect();
    name.truncate(READABLE_OCTETS_MAX);
    let mut hasher = blake3::Hasher::new_derive_key("mailrail 2026 harmless name");
    hasher.update(&attempt.to_le_bytes()).update(input);
    name.push(b'=');
    name.extend_from_slice(hasher.finalize().to_hex().as_bytes().get(..HEX_DIGITS).unwrap_or_default());
    name.extend_from_slice(extension);
    name
}

fn readable(octet: u8) -> u8 {
    if octet.is_ascii_alphanumeric() || b" -_.,@+~".contains(&octet) { octet } else { b'_' }
}

fn split_extension(input: &[u8]) -> (&[u8], &[u8]) {
    let tail = input.len().saturating_sub(EXTENSION_OCTETS_MAX + 1);
    let dot = input.iter().skip(tail).rposition(|octet| *octet == b'.').map(|at| tail + at);
    match dot.and_then(|at| input.split_at_checked(at)) {
        Some((stem, extension))
            if !stem.is_empty() && extension.len() > 1 && extension.iter().skip(1).all(u8::is_ascii_alphanumeric) =>
        {
            (stem, extension)
        }
        _ => (input, &[]),
    }
}

/// One component of a path: the name itself if that is harmless, else a made one.
pub(super) fn component(name: &[u8]) -> Cow<'_, [u8]> {
    if is_harmless(name) { Cow::Borrowed(name) } else { Cow::Owned(made(name, 0)) }
}

/// The components of a relative path whose names are separated by `/`; none for an empty path.
/// A path longer than [`PATH_OCTETS_MAX`] becomes one made name.
pub(super) fn components(path: &[u8]) -> Vec<Vec<u8>> {
    if path.is_empty() {
        return Vec::new();
    }
    let components: Vec<Vec<u8>> =
        path.split(|octet| *octet == b'/').map(|name| component(name).into_owned()).collect();
    if path_length(&components) > PATH_OCTETS_MAX { vec![made(path, 0)] } else { components }
}

/// How long these components are as a path, in octets.
pub(super) fn path_length(components: &[Vec<u8>]) -> usize {
    components.iter().map(|name| name.len() + 1).sum()
}

/// The components put together with `/`, as they would be without anything made harmless.
pub(super) fn joined(components: &[Vec<u8>]) -> Vec<u8> {
    components.join(&b'/')
}

/// A name as the operating system takes it.
#[cfg(unix)]
pub(super) fn native(name: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(name.to_vec())
}

/// A name as the operating system takes it.
#[cfg(not(unix))]
pub(super) fn native(name: &[u8]) -> OsString {
    String::from_utf8_lossy(name).into_owned().into()
}

/// The names in one directory that could be mistaken for another's: the made ones, and those that look made.
///
/// Holds nothing for ordinary names, so it stays small however many messages a folder has.
#[derive(Debug, Default)]
pub(super) struct Taken(Mutex<HashMap<Vec<u8>, Vec<u8>>>);

impl Taken {
    /// The name for `input`, which asks for `wanted`: `wanted` itself if it is harmless and nobody else's, else a made name.
    pub(super) fn name(&self, input: &[u8], wanted: &[u8]) -> Vec<u8> {
        self.name_unless(input, wanted, false)
    }

    /// The same; `is_ambiguous` says that `wanted` could be another input's too, although it is harmless.
    pub(super) fn name_unless(&self, input: &[u8], wanted: &[u8], is_ambiguous: bool) -> Vec<u8> {
        let is_harmless = is_harmless(wanted);
        if is_harmless && !is_ambiguous && !looks_made(wanted) {
            return wanted.to_vec();
        }
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = is_harmless.then(|| wanted.to_vec());
        for name in first.into_iter().chain((0..u32::MAX).map(|attempt| made(input, attempt))) {
            match taken.entry(name) {
                Entry::Occupied(entry) if entry.get() != input => {}
                Entry::Occupied(entry) => return entry.key().clone(),
                Entry::Vacant(entry) => {
                    let name = entry.key().clone();
                    entry.insert(input.to_vec());
                    return name;
                }
            }
        }
        made(input, u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_harmless_name_stays_as_it_is() {
        for name in [&b"1.M2P3.host"[..], b".A.B", b"a b ", b"\xff\xfe", b"...", b"-", b"a=b"] {
            assert_eq!(&*component(name), name);
        }
    }

    #[test]
    fn names_that_climb_out_or_cannot_be_are_made_harmless() {
        let long = vec![b'x'; 256];
        for name in [&b".."[..], b".", b"", b"a/b", b"/etc/passwd", b"a\0b", &long] {
            let made = component(name);
            assert_ne!(&*made, name);
            assert!(is_harmless(&made), "{made:?}");
        }
    }

    #[test]
    fn a_made_name_shows_what_it_was_and_keeps_its_extension() {
        let name = String::from_utf8(made(b"../../report.eml", 0)).unwrap();
        assert!(name.starts_with("_.._report=") && name.ends_with(".eml"), "{name}");
        assert_eq!(made(b"../../report.eml", 0), made(b"../../report.eml", 0));
    }

    #[test]
    fn a_name_written_to_look_like_a_made_one_does_not_meet_it() {
        let trap = made(b"a/b", 0);
        for order in [[&trap[..], b"a/b"], [b"a/b", &trap[..]]] {
            let taken = Taken::default();
            let names = order.map(|input| taken.name(input, input));
            assert_ne!(names[0], names[1]);
            assert_eq!(order.map(|input| taken.name(input, input)), names, "the same input gets the same name again");
        }
    }

    #[test]
    fn a_path_too_long_for_the_system_becomes_one_name() {
        let path = vec![b"level".to_vec(); 1000].join(&b'/');
        let components = components(&path);
        assert_eq!(components.len(), 1);
        assert!(components.iter().all(|name| is_harmless(name)));
    }

    proptest! {
        #[test]
        fn no_input_makes_a_component_that_is_not_harmless(path in vec(any::<u8>(), 0..400)) {
            prop_assert!(components(&path).iter().all(|name| is_harmless(name)));
            prop_assert!(is_harmless(&made(&path, 7)));
            prop_assert!(looks_made(&made(&path, 7)));
        }

        #[test]
        fn two_inputs_never_get_the_same_name(inputs in vec("[a/.=\\x00]{0,4}", 1..40)) {
            let taken = Taken::default();
            let mut inputs: Vec<Vec<u8>> = inputs.into_iter().map(String::into_bytes).collect();
            inputs.extend(inputs.clone().iter().map(|input| made(input, 0)));
            inputs.sort();
            inputs.dedup();
            let mut names: Vec<Vec<u8>> = inputs.iter().map(|input| taken.name(input, input)).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), inputs.len());
        }

        #[test]
        fn two_paths_never_have_the_same_components(a in "[ab/.]{0,6}", b in "[ab/.]{0,6}") {
            prop_assume!(a != b);
            prop_assert_ne!(components(a.as_bytes()), components(b.as_bytes()));
        }
    }
}
