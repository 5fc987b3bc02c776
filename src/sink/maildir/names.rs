//! What the names in a Maildir have to say: file names and info parts, folder names.

use crate::message::{Envelope, FolderPath, Identity, SystemFlags};
use crate::sink::names;
use crate::source::Kind;
use base64_simd::AsOut;

/// Names of directories that a folder cannot have, because they hold a Maildir's messages.
pub(super) fn holds_messages(name: &[u8]) -> bool {
    matches!(name, b"cur" | b"new" | b"tmp")
}

/// Where a message goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) is_new: bool,
    /// The info part with its separator, or nothing.
    pub(super) info: Vec<u8>,
}

impl Place {
    /// The place that a Maildir source gave; `None` if it is not one.
    pub(super) fn of_source(place: &[u8]) -> Option<Self> {
        let (directory, info) = place.split_at_checked(3)?;
        let is_sound = match info {
            [] => true,
            [b':' | b';' | b'!', rest @ ..] => !rest.contains(&b'/') && !rest.contains(&0),
            _ => false,
        };
        let is_new = match directory {
            b"cur" => false,
            b"new" => true,
            _ => return None,
        };
        is_sound.then(|| Self { is_new, info: info.to_vec() })
    }

    /// The place for these flags: always in `cur`, because a message that was in a mailbox before is not newly delivered.
    pub(super) fn of_flags(flags: SystemFlags, letters: &[u8]) -> Self {
        let mut info = b":2,".to_vec();
        // Letters are in ASCII order, the keywords' small ones last.
        let system = [
            (SystemFlags::DRAFT, b'D'),
            (SystemFlags::FLAGGED, b'F'),
            (SystemFlags::PASSED, b'P'),
            (SystemFlags::ANSWERED, b'R'),
            (SystemFlags::SEEN, b'S'),
            (SystemFlags::DELETED, b'T'),
        ];
        info.extend(system.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| *letter));
        info.extend_from_slice(letters);
        Self { is_new: false, info }
    }

    /// The same place with these letters for its keywords.
    pub(super) fn with_letters(mut self, letters: &[u8]) -> Self {
        let kept = self.info.len().min(3);
        let mut at = 0;
        self.info.retain(|octet| {
            at += 1;
            at <= kept || !octet.is_ascii_lowercase()
        });
        self.info.extend_from_slice(letters);
        self
    }

    fn directory(&self) -> &'static [u8] {
        if self.is_new { b"new" } else { b"cur" }
    }
}

/// A file name as it is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: Vec<u8>,
    /// What the name is made of, so that nothing else has the same.
    pub(super) input: Vec<u8>,
    /// Whether another identity and another place could make the same name.
    pub(super) is_ambiguous: bool,
    /// Whether it is another name than the message had.
    pub(super) is_renamed: bool,
}

/// The file name of a message that came from a Maildir: its unique name and the info part.
pub(super) fn of_unique(identity: &[u8], place: &Place) -> Wanted {
    let input = [&(identity.len() as u64).to_le_bytes()[..], identity, &place.info].concat();
    // A second message of the same unique name is known by its whole path (`cur/1.a:2,S`).
    let whole = identity.strip_prefix(place.directory()).and_then(|rest| rest.strip_prefix(b"/"));
    if let Some(name) = whole.filter(|name| name.ends_with(&place.info) && names::is_harmless(name)) {
        // Only the message that had this file can ask for it: the first one of the name has another info part, or is elsewhere.
        return Wanted { name: name.to_vec(), input, is_ambiguous: true, is_renamed: false };
    }
    let mut name = [identity, &place.info].concat();
    let is_renamed = !names::is_harmless(&name);
    if is_renamed {
        name = [&names::made(identity, 0), &place.info[..]].concat();
    }
    Wanted { name, input, is_ambiguous: has_info(identity), is_renamed }
}

fn has_info(name: &[u8]) -> bool {
    name.windows(3).any(|window| matches!(window, [b':' | b';' | b'!', b'1' | b'2', b',']))
}

/// The unique name for a message that came from elsewhere: seconds of its internal date, then what names it. The same on every run.
pub(super) fn unique(envelope: &Envelope, origin: &Kind, position: u64) -> Vec<u8> {
    let seconds = envelope.internal_date.map_or(0, |date| date.seconds.max(0));
    let middle = match &envelope.identity {
        Identity::Content => format!("P{position}"),
        Identity::Named(name) => {
            let mut hasher = blake3::Hasher::new_derive_key("mailrail 2026 maildir unique name");
            hasher.update(format!("{origin:?}").as_bytes()).update(&[0]).update(name);
            let mut digits = hasher.finalize().to_hex().to_string();
            digits.truncate(32);
            format!("I{digits}")
        }
    };
    format!("{seconds}.{middle}.mailrail").into_bytes()
}

/// The Maildir++ directory for a folder that came from elsewhere; nothing for the root. `None` if there is none that says the same.
pub(super) fn directory_of(path: &FolderPath) -> Option<Vec<u8>> {
    let names: &[String] = &path.names;
    match names {
        [] if path.raw.is_empty() => return Some(Vec::new()),
        [] => return None,
        [inbox] if inbox.eq_ignore_ascii_case("INBOX") => return Some(Vec::new()),
        _ => {}
    }
    if names.iter().any(String::is_empty) {
        return None;
    }
    let mut directory = Vec::new();
    for name in names {
        directory.push(b'.');
        encode(name, &mut directory);
    }
    names::is_harmless(&directory).then_some(directory)
}

/// Whether a folder's name can be read by everybody as it was: without the characters that Maildir++ has its own use for.
pub(super) fn is_plain(path: &FolderPath) -> bool {
    !path.names.iter().any(|name| name.chars().any(is_special))
}

fn is_special(character: char) -> bool {
    matches!(character, '.' | '/')
}

/// Appends a name in modified UTF-7 (RFC 3501 5.1.3). `.` and `/` are encoded as well, which the RFC has no need for, because in a Maildir++
/// name they would mean something else; decoding gives them back.
fn encode(name: &str, out: &mut Vec<u8>) {
    let is_direct = |character: char| (' '..='~').contains(&character) && !is_special(character);
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        if is_direct(character) {
            out.push(character as u8);
            if character == '&' {
                out.push(b'-');
            }
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let (shifted, behind) = rest.split_at(rest.find(is_direct).unwrap_or(rest.len()));
        let octets: Vec<u8> = shifted.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let mut digits = vec![0; base64_simd::STANDARD_NO_PAD.encoded_length(octets.len())];
        let digits = base64_simd::STANDARD_NO_PAD.encode(&octets, digits.as_out());
        out.push(b'&');
        out.extend(digits.iter().map(|digit| if *digit == b'/' { b',' } else { *digit }));
        out.push(b'-');
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::InternalDate;
    use proptest::prelude::*;

    fn path(names: &[&str], raw: &'static [u8]) -> FolderPath {
        FolderPath { names: names.iter().map(|name| (*name).to_owned()).collect(), raw: raw.into() }
    }

    fn directory(names: &[&str]) -> Option<String> {
        directory_of(&path(names, b"x")).map(|directory| String::from_utf8(directory).unwrap())
    }

    #[test]
    fn pitfall_31_folder_names_are_written_in_modified_utf7() {
        assert_eq!(directory(&["~peter", "mail", "台北", "日本語"]).unwrap(), ".~peter.mail.&U,BTFw-.&ZeVnLIqe-");
        assert_eq!(directory(&["Entwürfe", "A&B"]).unwrap(), ".Entw&APw-rfe.A&-B");
        assert_eq!(directory(&["😀"]).unwrap(), ".&2D3eAA-");
        assert_eq!(directory(&["a.b/c"]).unwrap(), ".a&AC4-b&AC8-c");
        assert!(!is_plain(&path(&["a.b"], b"")) && is_plain(&path(&["a-b "], b"")));
    }

    #[test]
    fn pitfall_31_inbox_in_any_case_is_the_root_but_its_subfolders_are_not() {
        assert_eq!(directory(&["inbox"]).unwrap(), "");
        assert_eq!(directory_of(&path(&[], b"")).unwrap(), b"");
        assert_eq!(directory(&["INBOX", "a"]).unwrap(), ".INBOX.a");
        assert_eq!(directory(&["a", "INBOX"]).unwrap(), ".a.INBOX");
    }

    #[test]
    fn pitfall_31_folder_names_that_no_directory_can_have_are_refused() {
        assert_eq!(directory(&["a", "", "b"]), None);
        assert_eq!(directory(&[""]), None);
        assert_eq!(directory(&["level"; 300]), None);
        assert_eq!(directory_of(&path(&[], b"raw")), None);
    }

    #[test]
    fn pitfall_28_the_info_part_comes_back_as_it_was() {
        for (place, is_new, info) in [
            (&b"cur:2,S"[..], false, &b":2,S"[..]),
            (b"cur;2,FS", false, b";2,FS"),
            (b"cur!2,", false, b"!2,"),
            (b"new", true, b""),
            (b"cur", false, b""),
            (b"new:2,", true, b":2,"),
            (b"cur:1,x", false, b":1,x"),
        ] {
            assert_eq!(Place::of_source(place), Some(Place { is_new, info: info.to_vec() }));
        }
        for place in [&b""[..], b"tmp", b"cur/../x", b"cur:2,/..", b"curx", b"cur:2,\0"] {
            assert_eq!(Place::of_source(place), None);
        }
    }

    #[test]
    fn pitfall_28_flags_become_letters_in_ascii_order() {
        let all = SystemFlags::from_bits(63);
        assert_eq!(Place::of_flags(all, b"ac").info, b":2,DFPRSTac");
        assert_eq!(Place::of_flags(SystemFlags::default(), b"").info, b":2,");
    }

    #[test]
    fn the_letters_of_keywords_are_exchanged_and_nothing_else() {
        let place = Place::of_source(b"cur:2,FSab").unwrap();
        assert_eq!(place.with_letters(b"c").info, b":2,FSc");
    }

    #[test]
    fn pitfall_28_a_second_message_of_the_same_unique_name_gets_its_own_file_back() {
        let first = of_unique(b"1.a", &Place::of_source(b"cur:2,").unwrap());
        let second = of_unique(b"cur/1.a:2,S", &Place::of_source(b"cur:2,S").unwrap());
        let third = of_unique(b"new/1.a", &Place::of_source(b"new").unwrap());
        assert_eq!(
            (&first.name[..], &second.name[..], &third.name[..]),
            (&b"1.a:2,"[..], &b"1.a:2,S"[..], &b"1.a"[..])
        );
    }

    #[test]
    fn a_unique_name_too_long_keeps_its_info_part() {
        let wanted = of_unique(&[b'x'; 254], &Place::of_source(b"cur:2,S").unwrap());
        assert!(wanted.name.ends_with(b":2,S") && names::is_harmless(&wanted.name));
    }

    #[test]
    fn made_unique_names_are_the_same_on_every_run_and_differ_by_position_or_name() {
        let mut envelope = Envelope::new("", Identity::Content);
        envelope.internal_date = Some(InternalDate { seconds: 5, nanos: 0, zone_minutes: None });
        assert_eq!(unique(&envelope, &Kind::Mbox, 7), b"5.P7.mailrail");
        envelope.identity = Identity::Named("../a".into());
        let name = unique(&envelope, &Kind::Eml, 7);
        assert_eq!(unique(&envelope, &Kind::Eml, 8), name);
        assert_ne!(unique(&envelope, &Kind::Mbox, 8), name);
    }

    proptest! {
        #[test]
        fn pitfall_31_different_folder_names_never_share_a_directory(
            a in proptest::collection::vec("[ab./&é -]{1,3}", 1..3),
            b in proptest::collection::vec("[ab./&é -]{1,3}", 1..3),
        ) {
            prop_assume!(a != b);
            let [a, b] = [a, b].map(|names| directory_of(&FolderPath { names, raw: "x".into() }));
            prop_assert!(a.is_none() || a != b);
        }
    }
}
