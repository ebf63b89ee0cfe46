//! Servers that prove who they are, those that cannot, and registries that serve several architectures.

use vmctl_providers::Digest;
use vmctl_providers::image::FetchError;
use vmctl_tests::certificate::Certificate;
use vmctl_tests::server::{Answer, Asked, Server};

use super::{World, disk};

fn served(body: &[u8]) -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    let body = body.to_vec();
    move |asked| Answer::file(asked, &body, "\"a\"")
}

#[tokio::test]
async fn server_is_trusted_with_its_certificate_and_under_its_name_only() {
    let body = disk(300, 21);
    let (certificate, other) = (Certificate::of(&["127.0.0.1"]), Certificate::of(&["127.0.0.1"]));
    let server = Server::start_tls(&certificate, served(&body));
    let mut world = World::new();
    let url = server.url("/d");
    let ca_file = world.folder.path().join("ca.pem");

    // A digest does not make up for it: whoever listens would learn what is asked for.
    for sha256 in [None, Some(Digest::of(&body))] {
        let error = world.error(&url, sha256.as_ref()).await;
        assert!(matches!(error, FetchError::Tls { .. }), "{error:?}");
        assert!(error.to_string().starts_with("no trusted connection to `127.0.0.1`: "), "{error}");
        assert!(error.help().is_some_and(|help| help.contains("VMCTL_CA_FILE")));
    }
    world.options.ca_file = Some(ca_file.clone());
    other.write(&ca_file);
    assert!(matches!(world.error(&url, None).await, FetchError::Tls { .. }));
    assert!(server.asked().is_empty(), "nobody who is not trusted is asked for anything");
    assert_eq!(world.downloads(), 0);

    certificate.write(&ca_file);
    assert_eq!(world.fetch(&url, None).await.unwrap().sha256, Digest::of(&body));
    let misnamed = url.replace("127.0.0.1", "localhost");
    let error = world.error(&misnamed, None).await;
    assert!(matches!(&error, FetchError::Tls { host, .. } if host == "localhost"), "{error:?}");

    std::fs::write(&ca_file, "no certificate").unwrap();
    let error = world.error(&url, None).await.to_string();
    assert!(error.contains("ca.pem` holds no certificates"), "{error}");
}

#[tokio::test]
async fn trusted_server_does_not_lead_to_plain_http() {
    let body = disk(300, 22);
    let plain = Server::start(served(&body));
    let to = plain.url("/d");
    let certificate = Certificate::of(&["127.0.0.1"]);
    let server = Server::start_tls(&certificate, move |_| Answer::status(302).header("Location", &to));
    let mut world = World::new();
    let ca_file = world.folder.path().join("ca.pem");
    certificate.write(&ca_file);
    world.options.ca_file = Some(ca_file);
    let error = world.error(&server.url("/d"), Some(&Digest::of(&body))).await;
    assert!(matches!(&error, FetchError::Redirect { why, .. } if why.contains("https to http")), "{error:?}");
    assert!(plain.asked().is_empty());
    // Whoever speaks no TLS is told as such, and never spoken to in plain.
    let error = world.error(&plain.url("/d").replace("http:", "https:"), None).await;
    assert!(matches!(error, FetchError::Tls { .. } | FetchError::Connect { .. }), "{error:?}");
}

/// What an index names: for which platform, and what.
fn index(entries: &[(&str, &str, &Digest)]) -> String {
    let entries = entries.iter().map(|(os, architecture, digest)| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            "platform": { "os": os, "architecture": architecture },
        })
    });
    let entries: Vec<_> = entries.collect();
    let kind = "application/vnd.oci.image.index.v1+json";
    serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries }).to_string()
}

#[tokio::test]
async fn index_of_a_registry_gives_the_image_for_this_host() {
    let (ours, theirs) = match std::env::consts::ARCH {
        "aarch64" => ("arm64", "amd64"),
        _ => ("amd64", "arm64"),
    };
    let bodies = [disk(100, 31), disk(100, 32), disk(100, 33)];
    let manifests = bodies.clone().map(|body| {
        let layer = serde_json::json!({
            "mediaType": "application/octet-stream", "digest": Digest::of(&body), "size": body.len(),
        });
        let kind = "application/vnd.oci.image.manifest.v1+json";
        serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "layers": [layer] }).to_string()
    });
    let digests = manifests.clone().map(Digest::of);
    let [linux, windows, other] = &digests;
    let all = index(&[("linux", theirs, other), ("windows", ours, windows), ("linux", ours, linux)]);
    let foreign = index(&[("linux", theirs, other), ("linux", "s390x", windows)]);
    let deep = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{ "mediaType": "x", "digest": Digest::of(&all), "size": 1 }],
    });
    let deeper = deep.to_string().replace(Digest::of(&all).as_str(), Digest::of(deep.to_string()).as_str());
    let blobs: Vec<_> = bodies.iter().map(|body| (Digest::of(body), body.clone())).collect();
    let texts = [all, foreign, deep.to_string(), deeper].into_iter().chain(manifests);
    let texts: Vec<_> = texts.map(|text| (Digest::of(&text), text)).collect();
    let server = Server::start(move |asked| {
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        if let Some((_, body)) = blobs.iter().find(|(digest, _)| digest.as_str() == name) {
            return Answer::file(asked, body, "\"b\"");
        }
        let named = ["all", "foreign", "deep", "deeper"].iter().position(|tag| *tag == name);
        let found = named.or_else(|| texts.iter().position(|(digest, _)| digest.as_str() == name));
        found.map_or(Answer::status(404), |found| Answer::whole(texts[found].1.clone()))
    });
    let world = World::new();
    let url = |tag: &str| format!("oci://{}/team/disk:{tag}", server.host());
    let fetched = world.fetch(&url("all"), None).await.unwrap();
    assert_eq!(fetched.sha256, Digest::of(&bodies[0]));
    // What is pinned is the index, so that a new image for another architecture is seen as well.
    assert_ne!(fetched.upstream.manifest.as_ref(), Some(linux));

    let error = world.error(&url("foreign"), None).await;
    let expected = format!("none of its 2 manifests is for linux/{ours} (but linux/{theirs}, linux/s390x)");
    assert_eq!(error.to_string(), format!("the artifact holds no one disk image: {expected}"));
    assert!(error.help().is_some());
    let error = world.error(&url("deeper"), None).await;
    assert!(
        matches!(&error, FetchError::Manifest { said, .. } if said == "an index of indexes"),
        "{error:?}"
    );
}
