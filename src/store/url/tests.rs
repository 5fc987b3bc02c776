use super::*;

#[test]
fn an_url_is_read_and_written() {
    for (text, shown) in [
        ("backup", "backup"),
        ("/b%20c", "/b%20c"),
        ("a:b", "a:b"),
        ("file:///b%20c", "/b c"),
        ("file://localhost/b", "/b"),
        ("memory:", "memory:"),
        ("s3://bucket", "s3://bucket/"),
        ("s3://my.bucket/a/b/", "s3://my.bucket/a/b"),
        ("azure://container/a", "az://container/a"),
        ("gs://bucket/a b", "gs://bucket/a b"),
    ] {
        assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), shown, "{text}");
    }
}

#[test]
fn what_is_no_url_is_refused_without_repeating_a_password() {
    for text in [
        "",
        "file://host/b",
        "file://",
        "file:b",
        "file:///%zz",
        "file:///%+1",
        "file:///%",
        "s3:bucket",
        "s3://",
        "s3:///a",
        "s3://user:hush@bucket/a",
        "s3://bucket/a?key=hush",
        "https://user:hush@host/",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "gs://bucket/a#b",
        "s3://buck et/a",
    ] {
        let error = text.parse::<StoreUrl>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}

#[test]
fn a_directory_and_memory_open() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions::new();
    let url = StoreUrl::from(directory.path().join("new"));
    assert_eq!(url.open(&options).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(url.open_or_create(&options).is_ok());
    assert!(url.open(&options).is_ok() && url.directory().is_some());
    assert!("memory:".parse::<StoreUrl>().unwrap().open(&options).is_ok());
}

#[test]
fn options_do_not_show_what_is_secret() {
    let options = StoreOptions::new().variable("AWS_SECRET_ACCESS_KEY", "hush").option("account_key", "hush");
    let shown = format!("{options:?}");
    assert!(shown.contains("account_key") && !shown.contains("hush"), "{shown}");
}

#[cfg(not(feature = "s3"))]
#[test]
fn a_feature_that_is_missing_is_named() {
    let error = "s3://bucket".parse::<StoreUrl>().unwrap().open(&StoreOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("feature 's3'"), "{error}");
}

#[cfg(all(feature = "s3", feature = "azure", feature = "gcs"))]
#[test]
fn options_that_are_none_and_http_to_others_are_refused() {
    let key = |options: StoreOptions| options.option("access_key_id", "k").option("secret_access_key", "hush");
    let account = |options: StoreOptions| options.option("account_name", "a").option("account_key", "aHVzaA==");
    let open = |url: &str, options: StoreOptions| url.parse::<StoreUrl>().unwrap().open(&options);
    let none = StoreOptions::new;
    assert!(open("s3://b/a", key(none())).is_ok());
    assert!(open("az://b/a", account(none())).is_ok());
    for options in [
        key(none()).option("endpont", "https://a"),
        key(none()).option("timeout", "5s"),
        key(none()).option("endpoint", "http://storage.example"),
        key(none()).option("endpoint", "https://a:hush@storage.example"),
        key(none()).option("endpoint", "ftp://storage.example"),
        key(none()).option("stall_timeout", "soon"),
        key(none()).option("part_bytes", "1000"),
        key(none()).option("path_style", "hush"),
        key(none()).option("unsigned_payload", "hush"),
        none().option("secret_access_key", "hush"),
    ] {
        let error = open("s3://b/a", options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
    for endpoint in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost:9000", "https://storage.example"] {
        assert!(open("s3://b/a", key(none()).option("endpoint", endpoint)).is_ok(), "{endpoint}");
    }
    let allowed = key(none()).option("endpoint", "http://storage.example").option("allow_http", "true");
    assert!(open("s3://b/a", allowed).is_ok());
    assert!(open("az://b/a", account(none()).option("use_emulator", "maybe")).is_err());
    assert!(open("gs://b/a", none().option("service_account", "/nowhere")).is_err());
}
