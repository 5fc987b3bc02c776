//! Amazon S3, and what speaks its protocol.

use super::StoreOptions;
use super::cloud::{Settings, client_options, connector, needs_http, not_built};
use super::profile::{self, Profile};
use crate::error::{Error, Result};
use crate::store::object_store_0_14::no_retries;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Key};
use object_store::client::ClientConfigKey;

pub(super) fn open(bucket: &str, options: &StoreOptions) -> Result<AmazonS3> {
    let settings = settings(options)?;
    let endpoint = settings.get(&Key::S3Endpoint).or_else(|| settings.get(&Key::Endpoint));
    let allows_http = settings.get(&Key::Client(ClientConfigKey::AllowHttp)) == Some("true");
    let client = client_options().with_allow_http(needs_http(endpoint, allows_http)?);
    let builder = AmazonS3Builder::new()
        .with_client_options(client)
        .with_retry(no_retries())
        .with_http_connector(connector(options)?);
    let builder = settings.put_into(builder, AmazonS3Builder::with_config).with_bucket_name(bucket);
    builder.build().map_err(|error| not_built(&error, options))
}

/// What is set, by options, by a profile that was asked for, by the environment, or by the default profile: the first that says anything.
fn settings(options: &StoreOptions) -> Result<Settings<Key>> {
    let mut settings = Settings::new();
    settings.take_environment(options, "AWS_");
    let has_keys = settings.get(&Key::AccessKeyId).is_some() || settings.get(&Key::WebIdentityTokenFile).is_some();
    match options.get("profile") {
        Some(name) => take_profile(&mut settings, &profile::read(options, name, true)?, true),
        None if has_keys => {}
        None => {
            let name = options.get_variable("AWS_PROFILE");
            let profile = profile::read(options, name.unwrap_or("default"), name.is_some())?;
            take_profile(&mut settings, &profile, false);
        }
    }
    settings.take_options(options, &["profile", "path_style"], |key| match key {
        Key::Client(key) => Some(*key),
        _ => None,
    })?;
    if options.get("endpoint").is_some() {
        settings.remove(&Key::S3Endpoint);
    }
    match options.get("path_style") {
        None => {}
        Some("true") => settings.set(Key::VirtualHostedStyleRequest, "false"),
        Some("false") => settings.set(Key::VirtualHostedStyleRequest, "true"),
        Some(_) => return Err(Error::invalid("path_style is true or false")),
    }
    Ok(settings)
}

/// `goes_first`: before what the environment says.
fn take_profile(settings: &mut Settings<Key>, profile: &Profile, goes_first: bool) {
    let keys = [
        ("aws_access_key_id", Key::AccessKeyId),
        ("aws_secret_access_key", Key::SecretAccessKey),
        ("aws_session_token", Key::Token),
        ("region", Key::Region),
        ("endpoint_url", Key::Endpoint),
        ("web_identity_token_file", Key::WebIdentityTokenFile),
        ("role_arn", Key::RoleArn),
        ("role_session_name", Key::RoleSessionName),
    ];
    if goes_first && profile.get("aws_access_key_id").is_some() {
        // A token of the environment belongs to the environment's keys.
        settings.remove(&Key::Token);
    }
    for (name, key) in keys {
        if let Some(value) = profile.get(name).filter(|_| goes_first || settings.get(&key).is_none()) {
            settings.set(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        let credentials = "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key=secret=with=equals\n\n# a comment\n[other]\naws_access_key_id=AKOTHER\naws_secret_access_key=s\n";
        fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        let config = "[default]\nregion = eu-north-1\n[profile other]\nregion=eu-west-2\nendpoint_url = https://s3.example\ns3 =\n  max_concurrent_requests = 20\n[profile sso]\nsso_session = x\n";
        fs::write(home.path().join(".aws/config"), config).unwrap();
        home
    }

    fn options(home: &tempfile::TempDir) -> StoreOptions {
        StoreOptions::new().variable("HOME", home.path().to_str().unwrap())
    }

    fn get(options: &StoreOptions, keys: [Key; 4]) -> [Option<String>; 4] {
        let settings = settings(options).unwrap();
        keys.map(|key| settings.get(&key).map(str::to_owned))
    }

    #[test]
    fn profiles_environment_and_options_go_before_each_other_as_they_should() {
        let home = home();
        let keys = || [Key::AccessKeyId, Key::SecretAccessKey, Key::Region, Key::Endpoint];
        let some = |text: &str| Some(text.to_owned());
        let by_default = get(&options(&home), keys());
        assert_eq!(by_default, [some("AKDEFAULT"), some("secret=with=equals"), some("eu-north-1"), None]);
        let other = [some("AKOTHER"), some("s"), some("eu-west-2"), some("https://s3.example")];
        assert_eq!(get(&options(&home).variable("AWS_PROFILE", "other"), keys()), other);
        assert_eq!(get(&options(&home).option("profile", "other"), keys()), other);
        let environment = options(&home).variable("AWS_ACCESS_KEY_ID", "AKENV").variable("AWS_SECRET_ACCESS_KEY", "e");
        assert_eq!(get(&environment, keys()), [some("AKENV"), some("e"), None, None]);
        assert_eq!(get(&environment.clone().option("profile", "other"), keys()), other);
        let region = environment.variable("AWS_REGION", "a").option("region", "b");
        assert_eq!(get(&region, keys())[2], some("b"));
    }

    #[test]
    fn an_option_goes_before_every_endpoint_of_the_environment() {
        let options = StoreOptions::new()
            .variable("AWS_ENDPOINT_URL_S3", "https://one.example")
            .variable("AWS_ENDPOINT_URL", "https://two.example")
            .option("endpoint", "https://three.example");
        let settings = settings(&options).unwrap();
        assert_eq!(
            (settings.get(&Key::S3Endpoint), settings.get(&Key::Endpoint)),
            (None, Some("https://three.example"))
        );
    }

    #[test]
    fn a_profile_that_is_not_there_or_needs_what_we_have_not_is_told() {
        let home = home();
        for name in ["nobody", "sso"] {
            assert!(settings(&options(&home).option("profile", name)).is_err(), "{name}");
        }
        assert!(settings(&StoreOptions::new()).is_ok(), "no home is no profile");
    }
}
