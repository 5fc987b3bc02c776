//! Which content is in which message: planned window by window, each window from its number alone.

use super::content::{Content, ContentId};
use super::random::{Random, at_weight, even, mix};
use super::table::{CLASSES, FILLER, Rate, WINDOW, members};

/// What is in the messages of one window.
#[derive(Clone, Debug)]
pub(super) struct Window {
    messages: Vec<Planned>,
}

/// What is in one message, before it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Planned {
    /// The thread that it belongs to, among the threads of its window.
    pub(super) thread: u64,
    /// Its parts, in no order.
    pub(super) parts: Vec<ContentId>,
}

/// Everything that windows are planned from.
#[derive(Clone, Debug)]
pub(super) struct Planner {
    pub(super) seed: u64,
    pub(super) cap: u32,
    pub(super) rates: [Rate; CLASSES.len()],
}

impl Window {
    /// The plan of message number `position`.
    pub(super) fn message(&self, position: u64) -> &Planned {
        &self.messages[(position % WINDOW) as usize]
    }

    /// The positions before `position` in the same thread, first to last.
    pub(super) fn earlier(&self, position: u64) -> impl Iterator<Item = u64> {
        let thread = self.message(position).thread;
        (0..position % WINDOW).filter(move |earlier| self.message(*earlier).thread == thread)
    }
}

impl Planner {
    /// The content of this id.
    pub(super) fn content(&self, id: ContentId) -> Content {
        Content::new(self.seed, self.cap, id)
    }

    /// Plans window `number`.
    pub(super) fn window(&self, number: u64) -> Window {
        let mut random = Random::new(mix(self.seed ^ 0x77, number));
        let mut messages = vec![Planned::default(); WINDOW as usize];
        for message in &mut messages {
            // The first of a dozen threads has a third of the messages.
            let point = random.below(1 << 16);
            message.thread = (point * point * 12) >> 32;
        }
        let mut groups = self.groups(number, &mut random);
        // Texts go first, one to each message as far as they reach: a message without any text is rare.
        groups.sort_by_key(|group| (!group.text, group.order));
        let mut seating =
            Seating { left: groups.iter().map(|group| group.members).sum(), messages, empty: WINDOW as u32 };
        for group in &groups {
            seating.seat(group, &mut random);
        }
        let mut messages = seating.messages;
        for (position, message) in messages.iter_mut().enumerate() {
            if message.parts.is_empty() {
                let ordinal = (1 << 48) + number * WINDOW + position as u64;
                message.parts.push(ContentId { class: FILLER, ordinal });
            }
        }
        Window { messages }
    }

    /// The contents of a window: new ones with their repeats, and repeats of contents from far away.
    fn groups(&self, number: u64, random: &mut Random) -> Vec<Group> {
        let mut groups = Vec::with_capacity(64);
        for (class, rate) in (0u8..).zip(&self.rates) {
            let offset = mix(self.seed ^ 0x6f, u64::from(class));
            let [first, end] = [number, number + 1].map(|window| turns(window, rate.groups, offset));
            let new = (first..end).map(|ordinal| {
                let [_, _, point] = even(offset, ordinal);
                (ordinal, members(usize::from(class), point, rate.repeated))
            });
            let far = turns(number, rate.far, !offset)..turns(number + 1, rate.far, !offset);
            let far = far.map(|_| {
                // Old contents are the popular ones: a letterhead, a logo, a form.
                let point = random.below(1 << 16);
                (((u128::from(first) * u128::from(point * point)) >> 32) as u64, 1)
            });
            let from = groups.len();
            groups.extend(new.chain(far).map(|(ordinal, members)| Group {
                id: ContentId { class, ordinal },
                members,
                text: false,
                order: 0,
            }));
            for group in &mut groups[from..] {
                group.text = self.content(group.id).kind().is_text();
                group.order = random.next();
            }
        }
        groups
    }
}

/// How often something that comes `rate` times a window (32 binary places) came before window `window`.
fn turns(window: u64, rate: u64, offset: u64) -> u64 {
    ((u128::from(window) * u128::from(rate) + u128::from(offset >> 32)) >> 32) as u64
}

/// A content and how many times it is to be in this window.
#[derive(Clone, Copy, Debug)]
struct Group {
    id: ContentId,
    members: u32,
    text: bool,
    order: u64,
}

/// A window being filled.
struct Seating {
    messages: Vec<Planned>,
    /// Messages without a part.
    empty: u32,
    /// Parts that have no message.
    left: u32,
}

impl Seating {
    /// Puts the members of a group into messages of one thread where possible, else into those that follow.
    fn seat(&mut self, group: &Group, random: &mut Random) {
        let start = random.below(WINDOW) as usize;
        let thread = self.messages[start].thread;
        for _ in 0..group.members {
            let empty_first = self.empty > 0 && (group.text || self.left <= self.empty);
            let place = self.place(start, group.id, |message| message.thread == thread, empty_first);
            let message = &mut self.messages[place];
            self.empty -= u32::from(message.parts.is_empty());
            self.left -= 1;
            message.parts.push(group.id);
        }
    }

    fn place(&self, start: usize, id: ContentId, near: impl Fn(&Planned) -> bool, empty_first: bool) -> usize {
        let find = |wanted: &dyn Fn(&Planned) -> bool| {
            (0..self.messages.len())
                .map(|step| (start + step) % self.messages.len())
                .find(|place| wanted(&self.messages[*place]))
        };
        let empty = |message: &Planned| empty_first && message.parts.is_empty();
        let new = |message: &Planned| !message.parts.contains(&id);
        find(&|message| near(message) && empty(message))
            .or_else(|| find(&empty))
            .or_else(|| find(&|message| near(message) && new(message)))
            .or_else(|| find(&new))
            .unwrap_or(start)
    }
}

/// The mailboxes: how many messages are in each, and which messages are copies of one in another mailbox.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    seed: u64,
    /// The number of each mailbox's first message, and of all messages.
    starts: Vec<u64>,
}

/// Mailboxes whose owners write to each other: a reply to all is in every mailbox of a circle.
const CIRCLE: u64 = 8;
/// One message in so many is a reply to all.
const REPLY_ALL: u64 = 20;

impl Layout {
    /// Shares `messages` among `mailboxes` (at least one), some of which have eight times as many as others.
    pub(super) fn new(seed: u64, mailboxes: u64, messages: u64) -> Self {
        let weights: Vec<u64> = (0..mailboxes.max(1)).map(|mailbox| 1 + mix(seed ^ 0x6d, mailbox) % 8).collect();
        let total: u64 = weights.iter().sum();
        let mut sum = 0;
        let mut starts = vec![0];
        starts.extend(weights.iter().map(|weight| {
            sum += weight;
            (u128::from(messages) * u128::from(sum) / u128::from(total)) as u64
        }));
        Self { seed, starts }
    }

    pub(super) fn mailboxes(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    pub(super) fn messages(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The numbers of a mailbox's messages among all of the organisation.
    pub(super) fn range(&self, mailbox: u64) -> std::ops::Range<u64> {
        self.starts[mailbox as usize]..self.starts[mailbox as usize + 1]
    }

    /// If message `index` of a mailbox is a reply to all from another mailbox: that mailbox. The message has the same index there.
    pub(super) fn origin(&self, mailbox: u64, index: u64) -> Option<u64> {
        let circle = mailbox / CIRCLE;
        let turn = mix(mix(self.seed ^ 0x72, circle), index / REPLY_ALL);
        if turn % REPLY_ALL != index % REPLY_ALL {
            return None;
        }
        let first = circle * CIRCLE;
        let origin = first + (turn >> 32) % CIRCLE.min(self.mailboxes() - first);
        let range = self.range(origin);
        (origin != mailbox && index < range.end - range.start).then_some(origin)
    }

    /// The share of messages that are copies from another mailbox; from the first million of messages if there are more.
    pub(super) fn shared(&self) -> f64 {
        const LOOKED_AT: u64 = 1 << 20;
        let (mut seen, mut shared) = (0, 0);
        for mailbox in 0..self.mailboxes() {
            let range = self.range(mailbox);
            let count = (range.end - range.start).min(LOOKED_AT - seen);
            seen += count;
            shared += (0..count).filter(|index| self.origin(mailbox, *index).is_some()).count() as u64;
        }
        shared as f64 / seen.max(1) as f64
    }
}

/// The folders of a mailbox: names, Maildir++ directory, messages among a hundred.
pub(super) const FOLDERS: [(&[&str], &str, u64); 10] = [
    (&["INBOX"], "", 38),
    (&["Sent"], ".Sent", 15),
    (&["Archive"], ".Archive", 6),
    (&["Archive", "2023"], ".Archive.2023", 9),
    (&["Archive", "2024"], ".Archive.2024", 12),
    (&["Projects", "Orion"], ".Projects.Orion", 6),
    (&["Lists"], ".Lists", 6),
    (&["Entwürfe"], ".Entw&APw-rfe", 1),
    (&["Junk"], ".Junk", 3),
    (&["Trash"], ".Trash", 4),
];

/// The folder of message `index` of `count` in a mailbox, the message's place in the folder, and how many are in the folder.
pub(super) fn folder(index: u64, count: u64) -> (usize, u64, u64) {
    let end = |folder: usize| {
        let weight: u64 = FOLDERS.iter().take(folder).map(|(_, _, weight)| weight).sum();
        (u128::from(count) * u128::from(weight) / 100) as u64
    };
    let number = at_weight((0..FOLDERS.len()).map(|folder| end(folder + 1) - end(folder)), index);
    (number, index.saturating_sub(end(number)), end(number + 1) - end(number))
}
