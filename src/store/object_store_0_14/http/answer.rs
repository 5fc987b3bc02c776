//! What an answer that is no success says beside its status.

use super::stall::Watched;
use crate::runtime::{Clock, SystemClock};
use http::HeaderMap;
use http::header::RETRY_AFTER;
use http_body::Body;
use mail_parser::DateTime;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

/// The most octets of an answer's body in which a code is looked for.
const EXPLANATION_MAX: usize = 16 << 10;

/// The longest code that is told.
const CODE_MAX: usize = 64;

/// When the server wants to be asked again: in so many seconds, or at a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let milliseconds = headers.get("x-ms-retry-after-ms").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if let Some(milliseconds) = milliseconds {
        return Some(Duration::from_millis(milliseconds));
    }
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_rfc822(value).filter(DateTime::is_valid)?.to_timestamp();
    Some(Duration::from_secs(u64::try_from(date).ok()?).saturating_sub(SystemClock.now()))
}

/// The code of an error: Azure's header, or what S3 and Google have in their bodies. Empty if there is none.
pub(super) async fn code(headers: &HeaderMap, body: Watched) -> String {
    let header = headers.get("x-ms-error-code").and_then(|value| value.to_str().ok());
    let code = match header {
        Some(code) => code.to_owned(),
        None => {
            let body = explanation(body).await;
            let text = String::from_utf8_lossy(&body);
            between(&text, "<Code>", "</Code>").or_else(|| of_json(&text)).unwrap_or_default().to_owned()
        }
    };
    // It is shown to people: a word, or nothing.
    let is_word = code.len() <= CODE_MAX && code.bytes().all(|octet| octet.is_ascii_alphanumeric());
    if is_word { code } else { String::new() }
}

async fn explanation(mut body: Watched) -> Vec<u8> {
    let mut octets = Vec::new();
    while octets.len() < EXPLANATION_MAX {
        match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            Some(Ok(frame)) => octets.extend(frame.into_data().unwrap_or_default()),
            // A body that breaks off explains as much as it has.
            _ => break,
        }
    }
    octets.truncate(EXPLANATION_MAX);
    octets
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(behind)?.0.trim())
}

/// Google's `"reason": "rateLimitExceeded"`.
fn of_json(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("\"reason\"")?;
    between(rest, "\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(name: &'static str, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn retry_after_is_a_time_or_a_date() {
        assert_eq!(after("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(after("x-ms-retry-after-ms", "70"), Some(Duration::from_millis(70)));
        assert_eq!(after("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let far = after("retry-after", "Wed, 21 Oct 2115 07:28:00 GMT").unwrap();
        assert!(far > Duration::from_secs(1 << 30), "{far:?}");
        assert_eq!(after("retry-after", "soon"), None);
        assert_eq!(after("retry-after", "-1"), None);
    }

    #[test]
    fn codes_are_found_in_xml_and_json() {
        let xml = "<Error><Code>SlowDown</Code><Message>Please</Message></Error>";
        assert_eq!(between(xml, "<Code>", "</Code>"), Some("SlowDown"));
        assert_eq!(of_json(r#"{"errors": [{"reason" : "rateLimitExceeded"}]}"#), Some("rateLimitExceeded"));
        assert_eq!(of_json("{}"), None);
    }
}
