//! What the clouds' options have in common.

use super::StoreOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::store::object_store_0_14::{Connector, Multipart};
use object_store::ClientOptions;
use object_store::client::ClientConfigKey;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// Options that are ours, for every cloud.
const OWN: [&str; 4] = ["stall_timeout", "multipart_above", "part_bytes", "parts_at_once"];

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What is set, by the name that that crate has for it.
pub(super) struct Settings<K>(BTreeMap<String, (K, String)>);

impl<K: FromStr + AsRef<str>> Settings<K> {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Takes what the environment says in variables that begin like this. What means nothing to that crate is for other programs.
    pub(super) fn take_environment(&mut self, options: &StoreOptions, prefix: &str) {
        for (name, value) in options.variables(prefix) {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                self.set(key, value);
            }
        }
    }

    /// Takes the options, but for ours and those of `taken`, which the caller understands. `client` tells which of that crate's are about HTTP.
    pub(super) fn take_options(
        &mut self,
        options: &StoreOptions,
        taken: &[&str],
        client: impl Fn(&K) -> Option<ClientConfigKey>,
    ) -> Result<()> {
        for (name, value) in options.all().filter(|(name, _)| !OWN.contains(name) && !taken.contains(name)) {
            let key = name.parse::<K>().ok().filter(|key| client(key).is_none_or(is_obeyed));
            let key =
                key.ok_or_else(|| Error::invalid(format!("'{}' is no option of this store", name.escape_debug())))?;
            self.set(key, value);
        }
        Ok(())
    }

    pub(super) fn set(&mut self, key: K, value: &str) {
        self.0.insert(key.as_ref().to_owned(), (key, value.to_owned()));
    }

    pub(super) fn get(&self, key: &K) -> Option<&str> {
        self.0.get(key.as_ref()).map(|(_, value)| value.as_str())
    }

    #[cfg(feature = "s3")]
    pub(super) fn remove(&mut self, key: &K) {
        self.0.remove(key.as_ref());
    }

    /// All of them, put into a builder.
    pub(super) fn put_into<B>(self, builder: B, put: impl Fn(B, K, String) -> B) -> B {
        self.0.into_values().fold(builder, |builder, (key, value)| put(builder, key, value))
    }
}

/// Whether our client does what is asked by this.
fn is_obeyed(key: ClientConfigKey) -> bool {
    matches!(key, ClientConfigKey::AllowHttp | ClientConfigKey::ProxyUrl | ClientConfigKey::UserAgent)
}

pub(super) fn client_options() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT_MAX)
}

pub(super) fn connector(options: &StoreOptions) -> Result<Connector> {
    let seconds = number(options, "stall_timeout")?.map(Duration::from_secs);
    match seconds {
        Some(Duration::ZERO) => Err(Error::invalid("stall_timeout is at least a second")),
        Some(seconds) => Ok(Connector::default().stall_after(seconds)),
        None => Ok(Connector::default()),
    }
}

pub(super) fn multipart(options: &StoreOptions) -> Result<Multipart> {
    let octets = |name, default| number(options, name).map(|octets| octets.unwrap_or(default));
    let at_once = octets("parts_at_once", 4)?;
    Multipart::new(octets("multipart_above", 16 << 20)?, octets("part_bytes", 16 << 20)?, at_once.min(64) as usize)
}

fn number(options: &StoreOptions, name: &str) -> Result<Option<u64>> {
    let Some(value) = options.get(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| Error::invalid(format!("{name} is a whole number")))
}

/// Sees that what goes to an endpoint goes by TLS, or nowhere outside of this machine. Gives whether HTTP is needed.
pub(super) fn needs_http(endpoint: Option<&str>, is_allowed: bool) -> Result<bool> {
    let Some(endpoint) = endpoint else { return Ok(false) };
    let url = reqwest::Url::parse(endpoint).map_err(|_| Error::invalid("the endpoint is not an URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid("the endpoint has credentials in it: give them as options or in the environment"));
    }
    match url.scheme() {
        "https" => Ok(false),
        "http" if is_allowed || is_this_machine(&url) => Ok(true),
        "http" => Err(Error::invalid(
            "the endpoint is http, which everybody on the way reads: allow_http=true if that is meant",
        )),
        _ => Err(Error::invalid("the endpoint is neither https nor http")),
    }
}

fn is_this_machine(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// That crate's error of a builder, without any value that was given: it may be a secret.
pub(super) fn not_built(error: &object_store::Error, options: &StoreOptions) -> Error {
    let text = error.to_string();
    let repeats = |(_, value): (&str, &str)| !value.is_empty() && text.contains(value);
    match options.all().chain(options.variables("")).any(repeats) {
        true => Error::new(ErrorKind::Invalid, "a value among the store's options is not one that it takes"),
        false => Error::new(ErrorKind::Invalid, format!("the store's options: {text}")),
    }
}
