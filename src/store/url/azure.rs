//! Azure Blob Storage.

use super::StoreOptions;
use super::cloud::{Settings, client_options, connector, needs_http, not_built};
use crate::error::{Error, Result};
use crate::store::object_store_0_14::no_retries;
use object_store::azure::{AzureConfigKey as Key, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;

pub(super) fn open(container: &str, options: &StoreOptions) -> Result<MicrosoftAzure> {
    let settings = settings(options)?;
    let allows_http = settings.get(&Key::Client(ClientConfigKey::AllowHttp)) == Some("true");
    let client = client_options().with_allow_http(needs_http(settings.get(&Key::Endpoint), allows_http)?);
    let builder = MicrosoftAzureBuilder::new()
        .with_client_options(client)
        .with_retry(no_retries())
        .with_http_connector(connector(options)?);
    let builder = settings.put_into(builder, MicrosoftAzureBuilder::with_config).with_container_name(container);
    builder.build().map_err(|error| not_built(&error, options))
}

fn settings(options: &StoreOptions) -> Result<Settings<Key>> {
    let mut settings = Settings::new();
    if let Some(text) = options.get_variable("AZURE_STORAGE_CONNECTION_STRING") {
        take_connection_string(&mut settings, text)?;
    }
    // As Azure's own command has them.
    for (name, key) in [("AZURE_STORAGE_ACCOUNT", Key::AccountName), ("AZURE_STORAGE_KEY", Key::AccessKey)] {
        if let Some(value) = options.get_variable(name) {
            settings.set(key, value);
        }
    }
    settings.take_environment(options, "AZURE_");
    if let Some(endpoint) = options.get_variable("IDENTITY_ENDPOINT") {
        settings.set(Key::MsiEndpoint, endpoint);
    }
    settings.take_options(options, &[], |key| match key {
        Key::Client(key) => Some(*key),
        _ => None,
    })?;
    Ok(settings)
}

/// `AccountName=...;AccountKey=...;BlobEndpoint=...`, as the portal shows it.
fn take_connection_string(settings: &mut Settings<Key>, text: &str) -> Result<()> {
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        // The text is a secret, and not repeated.
        let (name, value) =
            part.split_once('=').ok_or_else(|| Error::invalid("AZURE_STORAGE_CONNECTION_STRING is not understood"))?;
        match name.trim() {
            "AccountName" => settings.set(Key::AccountName, value),
            "AccountKey" => settings.set(Key::AccessKey, value),
            "SharedAccessSignature" => settings.set(Key::SasKey, value),
            "BlobEndpoint" => settings.set(Key::Endpoint, value.trim_end_matches('/')),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_taken_and_what_is_said_otherwise_goes_before_it() {
        let string =
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0==;BlobEndpoint=https://a.example/;";
        let options = StoreOptions::new().variable("AZURE_STORAGE_CONNECTION_STRING", string);
        let set = settings(&options).unwrap();
        assert_eq!(set.get(&Key::AccountName), Some("a"));
        assert_eq!(set.get(&Key::AccessKey), Some("c2VjcmV0=="));
        assert_eq!(set.get(&Key::Endpoint), Some("https://a.example"));
        let set = settings(&options.variable("AZURE_STORAGE_ACCOUNT", "b").option("account_key", "d")).unwrap();
        assert_eq!((set.get(&Key::AccountName), set.get(&Key::AccessKey)), (Some("b"), Some("d")));
    }
}
