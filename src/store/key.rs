//! What a key may be.

use crate::error::{Error, Result};
use std::ops::Range;

/// The longest name between two `/`, in octets: what file systems hold.
const LONGEST_NAME: usize = 255;

/// The longest key, in octets: what object stores hold.
const LONGEST_KEY: usize = 1024;

/// Checks that `key` is `/`-separated names of `[a-z0-9.-]`, each with a letter or digit in front and of at most 255 octets,
/// together at most 1,024. Such a key leads nowhere outside of a store, whatever the store makes of it.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) if it is not.
pub fn check_key(key: &str) -> Result<()> {
    if key.len() <= LONGEST_KEY && key.split('/').all(is_name) {
        return Ok(());
    }
    Err(Error::invalid(format!("'{}' is not a key of a store", key.escape_debug())))
}

/// Checks that `prefix` is empty, or a key and a `/`.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) if it is not.
pub fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() || prefix.strip_suffix('/').is_some_and(|key| check_key(key).is_ok()) {
        return Ok(());
    }
    Err(Error::invalid(format!("'{}' is not a prefix of a store's keys", prefix.escape_debug())))
}

/// Checks that `range` does not end before it begins.
pub(super) fn check_range(range: &Range<u64>) -> Result<()> {
    if range.start <= range.end {
        return Ok(());
    }
    Err(Error::invalid(format!("the range {}..{} ends before it begins", range.start, range.end)))
}

/// Whether `name` can stand between two `/` of a key.
pub(super) fn is_name(name: &str) -> bool {
    let legal = |octet: &u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
    name.len() <= LONGEST_NAME
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.as_bytes().iter().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn the_keys_of_a_repository_are_keys() {
        for key in ["config", "packs/0f/0f-12", "mailboxes/ab/abcd/00000001", "index/a.b", "keys/0"] {
            assert!(check_key(key).is_ok(), "{key}");
        }
    }

    #[test]
    fn what_leads_out_of_the_store_or_hides_in_it_is_no_key() {
        let long_name = "a".repeat(256);
        let long_key = "a/".repeat(512) + "a";
        for key in [
            "", "/", "/etc", "a/", "a//b", "..", "a/../b", ".", "./a", ".tmp/a", "-a", "A", "a b", "a\\b", "a\0",
            "c:a", "ä", &long_name, &long_key,
        ] {
            assert_eq!(check_key(key).unwrap_err().kind(), ErrorKind::Invalid, "{key:?}");
        }
    }

    #[test]
    fn a_prefix_is_a_whole_number_of_names() {
        assert!(check_prefix("").is_ok());
        assert!(check_prefix("packs/0f/").is_ok());
        for prefix in ["packs", "/", "../", "packs//"] {
            assert_eq!(check_prefix(prefix).unwrap_err().kind(), ErrorKind::Invalid, "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn no_key_leads_out_of_its_directory(key in "[a./\\\\~-]{0,12}") {
            if check_key(&key).is_ok() {
                let plain = std::path::Path::new(&key)
                    .components()
                    .all(|component| matches!(component, std::path::Component::Normal(_)));
                prop_assert!(plain, "{}", key);
            }
        }
    }
}
