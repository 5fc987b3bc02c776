//! How that crate's clients speak HTTP: reqwest over rustls, watched.
//!
//! What that crate would forget of an answer (`Retry-After`, a code) is kept here, as a cause in its error; and a connection on which no octet moves is given up,
//! however long a transfer may take on which some do.

mod answer;
mod stall;

use super::refusal::Refusal;
use crate::error::ErrorKind;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientOptions, RetryConfig};
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use stall::{Moving, Watched, unless_stalled};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How long a connection is kept that nobody uses: shorter than servers keep theirs, of which the shortest known is 5 s. A request on one that a server is just closing fails.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Hosts that give credentials to what runs on a machine of their cloud. Elsewhere there is nobody.
const METADATA_HOSTS: [&str; 4] = ["169.254.169.254", "169.254.170.2", "metadata", "metadata.google.internal"];

/// That crate's own retries switched off: [`Repository`](crate::Repository) tries again by itself, and obeys what a server asks for.
#[must_use]
pub fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Makes the HTTP clients of that crate's stores: give it to `with_http_connector` of a builder.
///
/// TLS is rustls with ring and the operating system's trust (on Linux also the files that `SSL_CERT_FILE` and `SSL_CERT_DIR` name); HTTP/1.1; no redirect is followed. Of the [`ClientOptions`]
/// these count: `allow_http`, `connect_timeout`, `proxy_url`, `user_agent`. There is no limit to how long a request takes as long as octets move: `timeout` does not count.
#[derive(Clone, Copy, Debug)]
pub struct Connector {
    stall: Duration,
}

impl Default for Connector {
    fn default() -> Self {
        Self { stall: Duration::from_secs(60) }
    }
}

impl Connector {
    /// Gives a request up when no octet of it or of its answer has moved for this long (and at most for twice as long). 60 s by default.
    #[must_use]
    pub fn stall_after(self, stall: Duration) -> Self {
        Self { stall }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = client(options).map_err(|source| object_store::Error::Generic { store: "HTTP client", source })?;
        Ok(HttpClient::new(Service { client, stall: self.stall }))
    }
}

fn client(options: &ClientOptions) -> Result<reqwest::Client, Box<dyn StdError + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    let option = |key| options.get_config_value(&key).filter(|value| !value.is_empty());
    let allows_http = option(ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
    // What that crate asks of hosts that give credentials: a second. It has other words for longer times.
    let connect = option(ClientConfigKey::ConnectTimeout).and_then(|time| time.strip_suffix('s')?.parse().ok());
    let agent = option(ClientConfigKey::UserAgent);
    let agent = agent.unwrap_or_else(|| concat!("mailrail/", env!("CARGO_PKG_VERSION")).to_owned());
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(!allows_http)
        .redirect(Policy::none())
        .pool_idle_timeout(IDLE_MAX)
        .connect_timeout(connect.map_or(CONNECT_MAX, Duration::from_secs))
        .user_agent(agent)
        .http1_only();
    if let Some(proxy) = option(ClientConfigKey::ProxyUrl) {
        builder = builder.proxy(reqwest::Proxy::all(proxy)?);
    }
    Ok(builder.build()?)
}

/// Sends requests.
#[derive(Clone, Debug)]
struct Service {
    client: reqwest::Client,
    stall: Duration,
}

impl HttpService for Service {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.send(request).boxed()
    }
}

impl Service {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if Handle::try_current().is_err() {
            let why =
                "requests need a tokio runtime: make the store inside of one, or give it one (ObjectStore014::on)";
            return Err(refused(Refusal::unanswered(ErrorKind::Unsupported, why)));
        }
        let (parts, body) = request.into_parts();
        let is_for_credentials = parts.uri.host().is_some_and(|host| METADATA_HOSTS.contains(&host));
        let url = parts.uri.to_string().parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let moving = Moving::default();
        let mut sent = reqwest::Request::new(parts.method, url);
        *sent.headers_mut() = parts.headers;
        *sent.body_mut() = Some(reqwest::Body::wrap(moving.count(body)));
        let answer = unless_stalled(self.stall, &moving, self.client.execute(sent)).await.ok_or_else(stalled)?;
        let answer = answer.map_err(|error| unanswered(error, is_for_credentials))?;
        let (parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        let body = Watched::new(body, self.stall);
        if parts.status.is_success() {
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        let code = answer::code(&parts.headers, body).await;
        match Refusal::of(parts.status.as_u16(), &code, answer::retry_after(&parts.headers)) {
            Some(refusal) => Err(refused(refusal)),
            // That crate knows what it means. The body may repeat what was sent, and nobody needs it.
            None => Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(Vec::new()))),
        }
    }
}

/// The refusal as an error of that crate. What kind it is there decides only whether a part is tried again at once.
fn refused(refusal: Refusal) -> HttpError {
    let kind = if refusal.may_pass_soon() { HttpErrorKind::Interrupted } else { HttpErrorKind::Unknown };
    HttpError::new(kind, refusal)
}

fn stalled() -> HttpError {
    refused(Refusal::unanswered(ErrorKind::Unavailable, "the connection stalled"))
}

/// Why there is no answer, without the URL, which may have credentials in it.
fn unanswered(error: reqwest::Error, is_for_credentials: bool) -> HttpError {
    if is_for_credentials {
        let why = "no credentials were given, and nobody gives any to this machine";
        return refused(Refusal::unanswered(ErrorKind::Denied, why));
    }
    // A builder's error is an URL that must not be asked (http where https is wanted).
    let kind = match () {
        () if error.is_builder() => ErrorKind::Invalid,
        () if is_about_trust(&error) => ErrorKind::Denied,
        () => ErrorKind::Unavailable,
    };
    refused(Refusal::unanswered(kind, in_words(&error.without_url())))
}

fn is_about_trust(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        // An error inside of an `io::Error` is its content and not its cause.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let tls = inner.or_else(|| error.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn in_words(error: &dyn StdError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.ends_with(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests;
