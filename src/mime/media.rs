//! What a Content-Type says of the structure (RFC 2045 5): multipart, message, or a leaf.

use std::borrow::Cow;

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;
use memchr::memmem;

/// How many encoded words in a value are left to the parser.
const ENCODED_WORDS_MAX: usize = 16;

/// The structure that a Content-Type announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// Parts between delimiters, with the boundary if it has a usable one (RFC 2046 5.1).
    Multipart {
        /// Whether parts without a type of their own are messages (RFC 2046 5.1.5).
        digest: bool,
        /// The boundary without white space at its end, or `None` where it is missing or empty or has a line break.
        boundary: Option<Vec<u8>>,
    },
    /// A message of its own: `message/rfc822` (RFC 2046 5.2.1) or `message/global` (RFC 6532 3.7).
    Message,
    /// Anything else.
    Leaf,
}

/// Reads the value of a Content-Type field, as it stands after the colon, folds included. `None` if no type is in it.
pub(super) fn media(value: &[u8]) -> Option<Media> {
    if is_plainly_a_leaf(value) {
        return Some(Media::Leaf);
    }
    let (mut text, is_utf8) = as_utf8(value);
    if !text.ends_with(b"\n") {
        text.to_mut().push(b'\n');
    }
    spoil_encoded_words(&mut text);
    let HeaderValue::ContentType(content_type) = MessageStream::new(&text).parse_content_type() else {
        return None;
    };
    Some(match (content_type.ctype(), content_type.subtype()) {
        ("multipart", subtype) => Media::Multipart {
            digest: subtype == Some("digest"),
            boundary: content_type.attribute("boundary").and_then(|written| boundary(written, is_utf8)),
        },
        ("message", Some("rfc822" | "global")) => Media::Message,
        _ => Media::Leaf,
    })
}

/// Whether the type before the slash is a single word that begins with another letter than those of interest do: most are, and need no parsing.
fn is_plainly_a_leaf(value: &[u8]) -> bool {
    let value = value.trim_ascii_start();
    let word = value.iter().take_while(|octet| octet.is_ascii_alphanumeric() || **octet == b'-').count();
    word > 0 && value.get(word) == Some(&b'/') && !value[0].eq_ignore_ascii_case(&b'm')
}

/// Spoils all encoded words (RFC 2047) but the first few. They have no business here, and the parser looks for the end of each one up to the
/// value's end: a value full of beginnings would take a time that grows with the square of its length.
fn spoil_encoded_words(text: &mut Cow<'_, [u8]>) {
    let beginnings: Vec<usize> = memmem::find_iter(text, b"=?").skip(ENCODED_WORDS_MAX).collect();
    for at in beginnings {
        if let Some(question_mark) = text.to_mut().get_mut(at + 1) {
            *question_mark = b'_';
        }
    }
}

/// The value as UTF-8. One that is none is taken for Latin-1, so that a boundary with 8-bit octets in it can be had back.
fn as_utf8(value: &[u8]) -> (Cow<'_, [u8]>, bool) {
    if std::str::from_utf8(value).is_ok() {
        return (Cow::Borrowed(value), true);
    }
    let text: String = value.iter().copied().map(char::from).collect();
    (Cow::Owned(text.into_bytes()), false)
}

fn boundary(written: &str, is_utf8: bool) -> Option<Vec<u8>> {
    let octets: Vec<u8> = if is_utf8 {
        written.as_bytes().to_vec()
    } else {
        written.chars().map(|each| u8::try_from(each).unwrap_or(b'?')).collect()
    };
    let boundary = octets.trim_ascii_end();
    (!boundary.is_empty() && memchr::memchr2(b'\n', b'\r', boundary).is_none()).then(|| boundary.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multipart(boundary: &[u8]) -> Option<Media> {
        Some(Media::Multipart { digest: false, boundary: Some(boundary.to_vec()) })
    }

    #[test]
    fn a_boundary_is_found_however_it_is_written() {
        for value in [
            " multipart/mixed; boundary=abc\r\n",
            " multipart/mixed; boundary=abc",
            " Multipart/Mixed;\r\n\tBOUNDARY=\"abc\"\r\n",
            "multipart/related; type=\"text/html\"; boundary=\"abc  \"; charset=x\n",
            " (comment) multipart/mixed (more); boundary=abc (end)\n",
            " multipart/mixed; boundary*0=a;\n boundary*1=\"bc\"\n",
            " multipart/mixed; boundary*=us-ascii'en'a%62c\n",
            " multipart/mixed; boundary=abc; boundary=other\n",
        ] {
            assert_eq!(media(value.as_bytes()), multipart(b"abc"), "{value:?}");
        }
    }

    #[test]
    fn a_boundary_keeps_octets_that_are_no_utf_8() {
        assert_eq!(media(b" multipart/mixed; boundary=\"a\xffb\"\n"), multipart(b"a\xffb"));
        assert_eq!(media("multipart/mixed; boundary=\"a\u{e9}b\"\n".as_bytes()), multipart("a\u{e9}b".as_bytes()));
    }

    #[test]
    fn a_multipart_without_a_boundary_says_so() {
        for value in
            ["multipart/mixed", "multipart/mixed; boundary=\"\"\n", "multipart/mixed; boundary=\"  \"\n", "multipart\n"]
        {
            assert_eq!(media(value.as_bytes()), Some(Media::Multipart { digest: false, boundary: None }), "{value:?}");
        }
    }

    #[test]
    fn messages_leaves_and_values_without_a_type_are_told_apart() {
        assert_eq!(media(b" message/rfc822\n"), Some(Media::Message));
        assert_eq!(media(b" Message/Global; x=y\n"), Some(Media::Message));
        for value in [
            "text/plain",
            "model/iges",
            "message/partial; id=a",
            "message/delivery-status",
            "text",
            "text\n multi/part",
        ] {
            assert_eq!(media(value.as_bytes()), Some(Media::Leaf), "{value:?}");
        }
        assert_eq!(media(b" \r\n"), None);
    }

    #[test]
    fn encoded_words_beyond_the_first_few_are_spoilt_and_the_boundary_behind_them_is_found() {
        let words = " =?aa?q?".repeat(ENCODED_WORDS_MAX + 2);
        let mut text = Cow::Borrowed(words.as_bytes());
        spoil_encoded_words(&mut text);
        assert_eq!(memmem::find_iter(&text, b"=?").count(), ENCODED_WORDS_MAX);
        assert_eq!(text.len(), words.len());
        let value = format!("multipart/mixed; name=\"{words}\"; boundary=abc\n");
        assert_eq!(media(value.as_bytes()), multipart(b"abc"));
    }

    proptest::proptest! {
        /// The parser behind it is not ours: what it gets is whatever a mail says.
        #[test]
        fn no_value_makes_it_panic(value in "[a-cM/ \\t\\r\\n;=*0-2'\"\\\\()?%=\u{e9}]{0,80}", prefix in proptest::bool::ANY) {
            let value = if prefix { format!("multipart/mixed;{value}") } else { value };
            let _ = media(value.as_bytes());
        }

        /// The short way must say what the long one says.
        #[test]
        fn what_is_plainly_a_leaf_is_one(value in "[ \\t]?[a-zA-Z]{1,5}/?[a-z;=\"(/ )]{0,12}") {
            if is_plainly_a_leaf(value.as_bytes()) {
                let text = format!("{value}\n");
                let HeaderValue::ContentType(parsed) = MessageStream::new(text.as_bytes()).parse_content_type() else {
                    return Err(proptest::test_runner::TestCaseError::fail("no type"));
                };
                proptest::prop_assert!(!matches!(parsed.ctype(), "multipart" | "message"));
            }
        }
    }
}
