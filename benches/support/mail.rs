//! Mail in memory, so that benches measure the engine and not how mail is made or read.

use mailrail::message::{Envelope, Evidence, Flags, Folder, Identity, MailboxName};
use mailrail::organisation::Organisation;
use mailrail::source::{Kind, Memory, SourceId};

/// An organisation's mail, and what there is of it.
pub(crate) struct Mail {
    pub(crate) source: Memory,
    pub(crate) octets: u64,
    messages: u64,
    /// The last mailbox: the one that new mail comes to.
    newest: MailboxName,
}

/// A synthetic organisation of about this many octets in 8 mailboxes.
pub(crate) fn organisation(octets: u64) -> Mail {
    let organisation = Organisation::new(1).mailboxes(8).bytes(octets).build();
    let source = Memory::new(SourceId::new([1; 16])).with_kind(Kind::Maildir);
    let mut mail = Mail { source, octets: 0, messages: 0, newest: MailboxName::default() };
    for mailbox in organisation.mailboxes() {
        for path in mailbox.folders() {
            mail.source.folder(&mailbox.name(), Folder::new(path));
        }
        for message in mailbox.messages() {
            let mut envelope = Envelope::new(message.folder().raw, Identity::Named(message.name().into()));
            envelope.evidence = Evidence(message.name().into());
            envelope.flags = Flags::from(message.flags());
            envelope.internal_date = Some(message.internal_date());
            envelope.place = message.place().into();
            mail.octets += message.length();
            mail.messages += 1;
            mail.source.message(&mailbox.name(), envelope, message.octets());
        }
        mail.newest = mailbox.name();
    }
    mail
}

/// Adds new messages of 20,000 octets: one for every hundred that were there, all to the inbox of one mailbox.
pub(crate) fn another_day(mail: &Mail) {
    for number in 0..mail.messages / 100 {
        mail.source.put(&mail.newest, "", format!("new-{number}"), text(number, 20_000));
    }
}

/// One message of text.
pub(crate) fn text(number: u64, length: usize) -> Vec<u8> {
    let mut text = format!(
        "From: sender-{number}@example.org\nTo: list@example.org\nSubject: message {number}\nMessage-ID: <{number}@example.org>\n\n"
    );
    let mut line = number;
    while text.len() + 60 < length {
        line = line.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text += &format!("Line {} of some words that people write to one another.\n", line >> 44);
    }
    text.into_bytes()
}
