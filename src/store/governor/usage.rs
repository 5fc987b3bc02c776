//! What was asked of a store, and what that costs.

use std::borrow::Cow;

/// Requests made of a store, each try and each part counted, whatever came of it.
///
/// Price lists know two classes: A is what writes and lists, B what reads. Deleting is free everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Usage {
    /// Objects, and parts of objects, written; beginning and completing an upload in parts counts too.
    pub writes: u64,
    /// Pages of listings, of 1,000 objects each.
    pub lists: u64,
    /// Ranges read.
    pub reads: u64,
    /// Lengths asked for.
    pub lengths: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// How many of all these the store refused because they were too many.
    pub refused: u64,
    /// How many of the reads were made because an earlier one took too long.
    pub hedged: u64,
    /// Octets given to the store.
    pub sent_bytes: u64,
    /// Octets that it gave.
    pub received_bytes: u64,
}

impl Usage {
    /// Requests of class A: writes and listings.
    #[must_use]
    pub fn class_a(&self) -> u64 {
        self.writes + self.lists
    }

    /// Requests of class B: reads and lengths.
    #[must_use]
    pub fn class_b(&self) -> u64 {
        self.reads + self.lengths
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.class_a() + self.class_b() + self.deletes
    }

    /// What was added since an `earlier` look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            writes: self.writes.saturating_sub(earlier.writes),
            lists: self.lists.saturating_sub(earlier.lists),
            reads: self.reads.saturating_sub(earlier.reads),
            lengths: self.lengths.saturating_sub(earlier.lengths),
            deletes: self.deletes.saturating_sub(earlier.deletes),
            refused: self.refused.saturating_sub(earlier.refused),
            hedged: self.hedged.saturating_sub(earlier.hedged),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
        }
    }
}

/// A price list for requests. What is stored, and what leaves the provider's network, is not in it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(clippy::exhaustive_structs, reason = "whoever has other prices builds it")]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Prices {
    /// Whose prices these are, of when, for people.
    pub name: Cow<'static, str>,
    /// The currency, as `USD`.
    pub currency: Cow<'static, str>,
    /// A thousand requests of class A.
    pub class_a_per_1000: f64,
    /// A thousand requests of class B.
    pub class_b_per_1000: f64,
}

impl Prices {
    /// Amazon S3 Standard, us-east-1. Sources and dates of all these lists: docs/throughput.md.
    pub const S3: Self = Self::usd("Amazon S3 Standard, us-east-1", 0.005, 0.000_4);
    /// Azure Blob Storage, hot, locally redundant, East US.
    pub const AZURE: Self = Self::usd("Azure Blob Storage, hot, LRS, East US", 0.005, 0.000_4);
    /// Google Cloud Storage Standard, one region.
    pub const GCS: Self = Self::usd("Google Cloud Storage Standard, single region", 0.005, 0.000_4);
    /// A store whose requests cost nothing: one of your own.
    pub const FREE: Self = Self::usd("no charge for requests", 0.0, 0.0);

    const fn usd(name: &'static str, class_a_per_1000: f64, class_b_per_1000: f64) -> Self {
        Self { name: Cow::Borrowed(name), currency: Cow::Borrowed("USD"), class_a_per_1000, class_b_per_1000 }
    }

    /// What these requests cost.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Cost {
        let amount = |requests: u64, per_1000: f64| requests as f64 / 1000.0 * per_1000;
        let amount = amount(usage.class_a(), self.class_a_per_1000) + amount(usage.class_b(), self.class_b_per_1000);
        Cost { amount, currency: self.currency.clone(), prices: self.name.clone() }
    }
}

/// What requests cost by a price list.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cost {
    /// How much.
    pub amount: f64,
    /// Of what.
    pub currency: Cow<'static, str>,
    /// By which list.
    pub prices: Cow<'static, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cost_by_class_and_deleting_is_free() {
        let usage = Usage { writes: 900, lists: 100, reads: 1500, lengths: 500, deletes: 10_000, ..Usage::default() };
        assert_eq!((usage.class_a(), usage.class_b(), usage.requests()), (1000, 2000, 13_000));
        let prices = Prices { class_a_per_1000: 5.0, class_b_per_1000: 0.5, ..Prices::S3 };
        let cost = prices.cost(&usage);
        assert!((cost.amount - 6.0).abs() < 1e-9 && cost.currency == "USD", "{cost:?}");
        let earlier = Usage { writes: 400, ..Usage::default() };
        assert_eq!(usage.since(&earlier), Usage { writes: 500, ..usage });
    }
}
