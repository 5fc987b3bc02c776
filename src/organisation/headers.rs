//! Headers as servers and mail programs write them: 2 to 12 KiB, unique to a message, about half compressible.

use super::compose::Composer;
use super::random::{Random, mix};
use super::words;
use std::fmt::Write;

/// What the headers of a message say.
#[derive(Debug)]
pub(super) struct Subject {
    /// Decides what copies of one message have in common.
    pub(super) key: u64,
    /// Decides what is this copy's own.
    pub(super) own: u64,
    /// Decides what messages of one thread have in common.
    pub(super) thread: u64,
    /// The keys of the messages that it answers, first to last.
    pub(super) earlier: Vec<u64>,
    /// When it was sent, in seconds since 1970.
    pub(super) sent: i64,
    /// Whose mailbox this copy is in.
    pub(super) owner: String,
    /// The mailbox is that of the sender.
    pub(super) is_list: bool,
}

/// Writes what the delivering servers put on top of a message.
pub(super) fn trace(subject: &Subject, out: &mut Composer) {
    let mut random = Random::new(mix(subject.own, 2));
    let owner = &subject.owner;
    out.line(format_args!("Return-Path: <bounce-{:x}@{}>", random.next() >> 40, host(&mut random)));
    out.line(format_args!("Delivered-To: {owner}@organisation.example"));
    for hop in 0..3 + random.below(4) {
        let (from, by) = (host(&mut random), host(&mut random));
        let when = date(subject.sent + 9 - hop as i64);
        let (id, address) = (random.next(), random.next());
        out.line(format_args!(
            "Received: from {from} ({from} [10.{}.{}.{}])\n\tby {by} with ESMTPS id {id:016x}\n\tfor <{owner}@organisation.example>; {when}",
            address % 256,
            address >> 8 & 255,
            address >> 16 & 255,
        ));
    }
}

/// Writes the sender's headers, and what filters on the way added, until about `target` octets of headers are there.
pub(super) fn rest(subject: &Subject, target: usize, out: &mut Composer) {
    let mut own = Random::new(mix(subject.own, 3));
    seals(subject, &mut own, out);
    sender(subject, out);
    if subject.is_list {
        list(subject, out);
    }
    let mut number = 0;
    while out.literal_len() + 400 < target {
        number += 1;
        filter(number, &mut own, out);
    }
}

fn seals(subject: &Subject, random: &mut Random, out: &mut Composer) {
    let (domain, seconds) = (host(random), subject.sent);
    out.line(format_args!(
        "ARC-Seal: i=1; a=rsa-sha256; t={seconds}; cv=none;\n\td={domain}; s=arc-20240605;\n\tb={}",
        signature(random, 344)
    ));
    out.line(format_args!(
        "ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d={domain};\n\ts=arc-20240605; \
         h=from:to:subject:date:message-id:mime-version;\n\tbh={};\n\tb={}",
        signature(random, 44),
        signature(random, 344)
    ));
    out.line(format_args!(
        "Authentication-Results: mx.organisation.example;\n\tdkim=pass header.i=@{domain} header.s=mail;\n\tspf=pass \
         smtp.mailfrom={domain};\n\tdmarc=pass (p=NONE) header.from={domain}"
    ));
}

fn sender(subject: &Subject, out: &mut Composer) {
    let mut random = Random::new(mix(subject.key, 4));
    let mut thread = Random::new(mix(subject.thread, 5));
    let domain = host(&mut thread);
    out.line(format_args!(
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s=mail;\n\tt={}; h=from:to:cc:subject:date:message-id;\n\tbh={};\n\tb={}",
        subject.sent,
        signature(&mut random, 44),
        signature(&mut random, 344)
    ));
    let topic = topic(&mut thread);
    let answer = if subject.earlier.is_empty() { "" } else { "Re: " };
    out.line(format_args!("Date: {}", date(subject.sent)));
    out.line(format_args!("From: {}", person(&mut random)));
    out.line(format_args!("To: {}", person(&mut thread)));
    for copy in 0..random.below(4) {
        let lead = if copy == 0 { "Cc: " } else { "X-Also-To: " };
        out.line(format_args!("{lead}{}", person(&mut random)));
    }
    out.line(format_args!("Subject: {answer}{topic}"));
    out.line(format_args!("Message-ID: {}", message_id(subject.key)));
    if let Some(last) = subject.earlier.last() {
        out.line(format_args!("In-Reply-To: {}", message_id(*last)));
        let all: Vec<String> = subject.earlier.iter().map(|key| message_id(*key)).collect();
        out.line(format_args!("References: {}", all.join("\n ")));
    }
    let agent =
        random.pick(&["Thunderbird 115.8", "Microsoft Outlook 16.0", "Apple Mail (2.3774)", "Evolution 3.46.4"]);
    out.line(format_args!("User-Agent: {agent}"));
}

fn list(subject: &Subject, out: &mut Composer) {
    let name = words::word(&mut Random::new(subject.thread % 5));
    out.line(format_args!("List-Id: <{name}.lists.organisation.example>"));
    out.line(format_args!("List-Post: <mailto:{name}@lists.organisation.example>"));
    out.line(format_args!("List-Unsubscribe: <https://lists.organisation.example/{name}/{:x}>", subject.own));
    out.line(format_args!("Precedence: list"));
}

/// One of the lines that filters leave: some always alike, some with a blob of base64.
fn filter(number: u64, random: &mut Random, out: &mut Composer) {
    match random.below(7) {
        0 | 1 => out.line(format_args!("X-Filter-Message-Info-{number}:\n\t{}", signature(random, 300))),
        2 => out.line(format_args!(
            "X-Filter-Report: BCL:0;SFV:NSPM;SCL:{};SRV:;IPV:NLI;\n\tH:mail{}.example.net;PTR:InfoDomainNonexistent;CAT:NONE;\n\tSFS:(13230040)({});DIR:INB",
            random.below(9),
            random.below(100),
            random.next() >> 34,
        )),
        3 => out.line(format_args!(
            "X-Transport-CrossTenant-Id-{number}: {:08x}-{:04x}-4{:03x}-{:016x}",
            random.next() >> 32,
            random.next() >> 48,
            random.next() >> 52,
            random.next()
        )),
        _ => {
            let mut words = String::new();
            for _ in 0..12 {
                words.push_str(words::word(random));
                words.push(' ');
            }
            out.line(format_args!("X-Filter-Notes: {}", words.trim_end()));
        }
    }
}

/// `characters` characters of base64 without meaning, folded.
fn signature(random: &mut Random, characters: usize) -> String {
    let mut octets = Vec::with_capacity(characters);
    random.octets(characters / 4 * 3, &mut octets);
    let text = base64_simd::STANDARD.encode_to_string(&octets);
    let mut folded = String::with_capacity(characters + characters / 32);
    let mut rest = text.as_str();
    while let Some((line, more)) = rest.split_at_checked(70) {
        folded.push_str(line);
        folded.push_str("\n\t ");
        rest = more;
    }
    folded + rest
}

fn message_id(key: u64) -> String {
    format!("<{:016x}.{:x}@mail.organisation.example>", mix(key, 6), key >> 36)
}

/// A name and an address; one name in six is not ASCII (RFC 2047).
fn person(random: &mut Random) -> String {
    let (first, last) = (words::word(random), words::word(random));
    let domain = if random.percent(60) { "organisation.example" } else { "partner.example.com" };
    if random.percent(16) {
        let name = format!("{first} {}", words::foreign_word(random));
        return format!("{} <{first}.{last}@{domain}>", encoded_word(&name));
    }
    format!("{first} {last} <{first}.{last}@{domain}>")
}

/// What a thread is about; one in five is not ASCII (RFC 2047).
fn topic(random: &mut Random) -> String {
    let mut text = String::new();
    for number in 0..3 + random.below(5) {
        if number > 0 {
            text.push(' ');
        }
        text.push_str(words::word(random));
    }
    if !random.percent(20) {
        return text;
    }
    let tail = words::foreign_word(random);
    if random.percent(50) {
        return format!("{text} {}", encoded_word(tail));
    }
    let mut quoted = String::from("=?utf-8?Q?");
    for octet in tail.bytes() {
        // Writing to a string cannot fail.
        let _ = if octet.is_ascii_alphanumeric() {
            write!(quoted, "{}", octet as char)
        } else {
            write!(quoted, "={octet:02X}")
        };
    }
    format!("{text} {quoted}?=")
}

fn encoded_word(text: &str) -> String {
    format!("=?utf-8?B?{}?=", base64_simd::STANDARD.encode_to_string(text))
}

fn host(random: &mut Random) -> String {
    format!("{}{}.{}.example", random.pick(&["mx", "mail", "smtp", "out"]), random.below(40), words::word(random))
}

/// A date as in RFC 5322 3.3.
pub(super) fn date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date in the Gregorian calendar, with years that begin in March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    format!(
        "{}, {day} {} {year} {:02}:{:02}:{:02} +0000",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize],
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(date(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 +0000");
    }
}
