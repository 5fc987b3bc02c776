//! How a store is spoken to.

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
use crate::store::{ProbedStore, Store};
use crate::store::{Probes, Writers};
use std::collections::BTreeMap;
use std::env;
use std::fmt;
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
use std::sync::Arc;

/// The environment variables that say how to speak to a store begin with one of these, or are one.
const VARIABLES: [&str; 7] =
    ["AWS_", "AZURE_", "AZURITE_", "GOOGLE_", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "SERVICE_ACCOUNT"];

/// How to speak to the store of an [`StoreUrl`](super::StoreUrl): credentials, endpoints, sizes. Nothing of it is in `Debug`'s text but names.
///
/// [Options](Self::option) go before the environment. Each kind of store has its own, and takes no other:
///
/// | option | stores | what |
/// |---|---|---|
/// | `endpoint` | s3, az | where requests go, if not to the cloud itself |
/// | `region`, `profile`, `path_style` | s3 | the region; a profile of `~/.aws`; `false`: the bucket is a name in front of the host |
/// | `access_key_id`, `secret_access_key`, `session_token`, `role_arn`, `web_identity_token_file` | s3 | credentials; better in the environment |
/// | `account_name`, `account_key`, `sas_token`, `client_id`, `client_secret`, `tenant_id`, `federated_token_file` | az | credentials; better in the environment |
/// | `service_account`, `application_credentials`, `base_url` | gs | files with credentials; where requests go |
/// | `allow_http`, `proxy_url`, `user_agent` | all | HTTP without TLS to a host that is not this machine; a proxy; a name |
/// | `stall_timeout` | all | seconds after which a connection is given up on which no octet moves: 60 |
/// | `multipart_above`, `part_bytes`, `parts_at_once` | all | objects of more octets go in parts, of so many octets, so many at once: 16 MiB, 16 MiB, 4 |
///
/// and whatever else the builders of the crate `object_store` take by name. In the environment they have their usual names (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_PROFILE`, `AWS_ENDPOINT_URL`,
/// `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_CONNECTION_STRING`, `GOOGLE_APPLICATION_CREDENTIALS`, ...).
#[derive(Clone, Default)]
pub struct StoreOptions {
    environment: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    writers: Writers,
    /// Shared by clones: a store is probed once for all that are opened with these.
    probes: Probes,
}

impl StoreOptions {
    /// No options, and nothing from the environment.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What this process's environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let is_about_stores = |name: &str| VARIABLES.iter().any(|known| name.starts_with(known)) || name == "HOME";
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let variables =
            env::vars_os().filter_map(text).filter(|(name, value)| is_about_stores(name) && !value.is_empty());
        Self { environment: variables.collect(), ..Self::default() }
    }

    /// With an environment variable in place of the process's own.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// With an option. The last of a name counts.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// Who writes: any number at once, unless it is said otherwise. (A store in a bucket is [probed](crate::store::ProbedStore) before it is written to.)
    #[must_use]
    pub fn writers(self, writers: Writers) -> Self {
        Self { writers, ..self }
    }

    /// The store, probed before it is written to. What was found is shared by clones of these options.
    #[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
    pub(super) fn probed(&self, store: Arc<dyn Store>, name: String) -> ProbedStore {
        ProbedStore::new(store, name, self.writers, self.probes.clone())
    }

    #[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
    pub(super) fn get_variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    #[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Variables and their values, of names that begin like this.
    #[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
    pub(super) fn variables(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.environment.iter().filter(move |(name, _)| name.starts_with(prefix));
        all.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    #[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.keys().chain(self.options.keys()).collect();
        let mut debug = f.debug_struct("StoreOptions");
        debug.field("names", &names).field("writers", &self.writers).field("probes", &self.probes).finish()
    }
}
