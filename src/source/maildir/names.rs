//! What the names in a Maildir say: file names (unique part and info), folder names, keywords.

use crate::message::{Flags, SystemFlags};
use bytes::Bytes;

/// The keywords that the letters `a` to `z` stand for in one folder.
pub(super) type Keywords = [Option<String>; 26];

/// The unique name: the file name up to the info part (`:2,`, on Windows and some file servers `;2,` or `!2,`).
pub(super) fn unique(name: &[u8]) -> &[u8] {
    match info_start(name) {
        Some(start) if start > 0 => name.get(..start).unwrap_or(name),
        _ => name,
    }
}

/// The info part with its separator; empty if there is none.
pub(super) fn info(name: &[u8]) -> &[u8] {
    name.get(unique(name).len()..).unwrap_or_default()
}

fn info_start(name: &[u8]) -> Option<usize> {
    name.windows(3).rposition(|window| matches!(window, [b':' | b';' | b'!', b'1' | b'2', b',']))
}

/// Where a message is: `cur` or `new`, and the info part of its file name.
pub(super) fn place(directory: &str, name: &[u8]) -> Bytes {
    let info = info(name);
    if info.is_empty() && directory == "cur" {
        return Bytes::from_static(b"cur");
    }
    [directory.as_bytes(), info].concat().into()
}

/// The flags that the info part gives. Letters without a meaning are kept by [`place`] alone.
pub(super) fn flags(name: &[u8], keywords: &Keywords) -> Flags {
    let Some([_, b'2', b',', letters @ ..]) = info(name).get(..) else { return Flags::default() };
    let mut system = SystemFlags::default();
    let mut words = Vec::new();
    for &letter in letters {
        match letter {
            b'S' => system = system.with(SystemFlags::SEEN),
            b'R' => system = system.with(SystemFlags::ANSWERED),
            b'F' => system = system.with(SystemFlags::FLAGGED),
            b'T' => system = system.with(SystemFlags::DELETED),
            b'D' => system = system.with(SystemFlags::DRAFT),
            b'P' => system = system.with(SystemFlags::PASSED),
            b'a'..=b'z' => words.extend(keywords.get(usize::from(letter - b'a')).cloned().flatten()),
            _ => {}
        }
    }
    Flags::new(system, words)
}

/// The keywords of a `dovecot-keywords` file: lines of a number, a space and the keyword; 0 is the letter `a`.
pub(super) fn keywords(file: &[u8]) -> Keywords {
    let mut keywords = Keywords::default();
    for line in file.split(|&octet| octet == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let Some((number, keyword)) = line.trim_end().split_once(' ') else { continue };
        let slot = number.parse::<usize>().ok().and_then(|number| keywords.get_mut(number));
        if let Some(slot) = slot {
            *slot = Some(keyword.to_owned());
        }
    }
    keywords
}

/// The names of a folder, decoded: `INBOX` for the root; a Maildir++ directory is split at its dots, a nested one at its slashes.
pub(super) fn folder_names(raw: &[u8]) -> Vec<String> {
    if raw.is_empty() {
        return vec!["INBOX".to_owned()];
    }
    match raw {
        [b'.', names @ ..] if !names.contains(&b'/') => names.split(|&octet| octet == b'.').map(decoded).collect(),
        _ => raw.split(|&octet| octet == b'/').map(decoded).collect(),
    }
}

/// Decodes modified UTF-7 (RFC 3501 5.1.3). What is not modified UTF-7 is taken for UTF-8, because some servers write that.
fn decoded(name: &[u8]) -> String {
    modified_utf7(name).unwrap_or_else(|| String::from_utf8_lossy(name).into_owned())
}

fn modified_utf7(mut name: &[u8]) -> Option<String> {
    let mut decoded = String::with_capacity(name.len());
    while let Some((&octet, rest)) = name.split_first() {
        name = rest;
        if octet != b'&' {
            decoded.push(char::from(octet).is_ascii().then(|| char::from(octet))?);
            continue;
        }
        let end = name.iter().position(|&octet| octet == b'-')?;
        let (shifted, rest) = name.split_at_checked(end)?;
        name = rest.get(1..)?;
        if shifted.is_empty() {
            decoded.push('&');
        } else {
            decoded.push_str(&shifted_text(shifted)?);
        }
    }
    Some(decoded)
}

/// Modified base64 of UTF-16, big end first: 6 bits a character, `,` in the place of `/`, no padding.
fn shifted_text(shifted: &[u8]) -> Option<String> {
    let mut units = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for &octet in shifted {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            b',' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 16 {
            count -= 16;
            units.push((bits >> count) as u16);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0 && count < 6).then(|| String::from_utf16(&units).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pitfall_28_the_info_part_is_found_behind_colon_semicolon_and_exclamation_mark() {
        for name in [&b"1.a:2,FS"[..], b"1.a;2,FS", b"1.a!2,FS"] {
            assert_eq!(unique(name), b"1.a");
            assert_eq!(info(name), &name[3..]);
            assert_eq!(flags(name, &Keywords::default()).system, SystemFlags::SEEN.with(SystemFlags::FLAGGED));
        }
        assert_eq!(place("cur", b"1.a:2,S"), &b"cur:2,S"[..]);
        assert_eq!(place("cur", b"1.a"), &b"cur"[..]);
        assert_eq!(place("new", b"1.a"), &b"new"[..]);
    }

    #[test]
    fn pitfall_28_size_fields_belong_to_the_unique_name() {
        assert_eq!(unique(b"1.M2.host,S=1000,W=1030:2,S"), b"1.M2.host,S=1000,W=1030");
        assert_eq!(unique(b"1.a,S=3"), b"1.a,S=3");
        assert_eq!(unique(b":2,S"), b":2,S");
        assert_eq!(info(b":2,S"), b"");
        assert_eq!(unique(b"a\xff\xfe:2,"), b"a\xff\xfe");
    }

    #[test]
    fn pitfall_28_letters_are_keywords_and_unknown_letters_stay_in_the_place() {
        let map = keywords(b"0 $Label1\n2 Junk\n99 TooFar\nx y\n25 last one\r\n");
        assert_eq!(map[0].as_deref(), Some("$Label1"));
        assert_eq!(map[25].as_deref(), Some("last one"));
        let flags = flags(b"1:2,DPRSTabcQ", &map);
        assert_eq!(flags.keywords(), ["$Label1", "Junk"]);
        assert_eq!(flags.system.bits(), 1 | 2 | 8 | 16 | 32);
        assert_eq!(place("cur", b"1:2,DPRSTabcQ"), &b"cur:2,DPRSTabcQ"[..]);
    }

    #[test]
    fn experimental_info_gives_no_flags() {
        assert_eq!(flags(b"1:1,S", &Keywords::default()), Flags::default());
        assert_eq!(unique(b"1:1,S"), b"1");
    }

    #[test]
    fn pitfall_29_folder_names_are_decoded_from_modified_utf7() {
        assert_eq!(folder_names(b""), ["INBOX"]);
        assert_eq!(folder_names(b".Entw&APw-rfe.A&-B"), ["Entwürfe", "A&B"]);
        assert_eq!(folder_names(b".~peter.mail.&U,BTFw-.&ZeVnLIqe-"), ["~peter", "mail", "台北", "日本語"]);
        assert_eq!(folder_names(b"A/&2D3eAA-"), ["A", "😀"]);
        assert_eq!(folder_names(".Entwürfe".as_bytes()), ["Entwürfe"]);
        assert_eq!(folder_names(b".R&D"), ["R&D"]);
        assert_eq!(folder_names(b".a\xff"), ["a\u{fffd}"]);
        assert_eq!(folder_names(b".A/B"), [".A", "B"]);
    }

    proptest! {
        #[test]
        fn any_octets_are_a_name(name: Vec<u8>) {
            prop_assert_eq!([unique(&name), info(&name)].concat(), name.clone());
            let _ = flags(&name, &Keywords::default());
            let _ = folder_names(&name);
            let _ = keywords(&name);
        }
    }
}
