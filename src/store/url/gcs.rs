//! Google Cloud Storage.

use super::StoreOptions;
use super::cloud::{Settings, client_options, connector, needs_http, not_built};
use crate::error::Result;
use crate::store::object_store_0_14::no_retries;
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey as Key};

pub(super) fn open(bucket: &str, options: &StoreOptions) -> Result<GoogleCloudStorage> {
    let mut settings = Settings::new();
    if let Some(path) = options.get_variable("SERVICE_ACCOUNT") {
        settings.set(Key::ServiceAccount, path);
    }
    settings.take_environment(options, "GOOGLE_");
    settings.take_options(options, &[], |key| match key {
        Key::Client(key) => Some(*key),
        _ => None,
    })?;
    let allows_http = settings.get(&Key::Client(ClientConfigKey::AllowHttp)) == Some("true");
    let client = client_options().with_allow_http(needs_http(settings.get(&Key::BaseUrl), allows_http)?);
    let builder = GoogleCloudStorageBuilder::new()
        .with_client_options(client)
        .with_retry(no_retries())
        .with_http_connector(connector(options)?);
    let builder = settings.put_into(builder, GoogleCloudStorageBuilder::with_config).with_bucket_name(bucket);
    builder.build().map_err(|error| not_built(&error, options))
}
