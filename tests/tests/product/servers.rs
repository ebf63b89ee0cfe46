//! What lies between vmctl and a server: certificates, proxies and logins, as the environment and Docker's files say.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use vmctl_tests::certificate::Certificate;
use vmctl_tests::proxy::Proxy;
use vmctl_tests::server::{Answer, Asked, Server};
use vmctl_tests::world::free_port;
use vmctl_tests::{World, surroundings};

/// A raw disk with a boot record's mark.
fn disk() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..300_u32 << 10).map(|n| (n / 11) as u8).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes
}

fn file(asked: &Asked) -> Answer {
    Answer::file(asked, &disk(), "\"a\"")
}

/// Its digest, as somebody who knows the disk says it.
fn sha256(world: &World) -> String {
    fs::write(world.folder().join("home/known.raw"), disk()).unwrap();
    let sum = world.beside_vmctl("sha256sum").arg("../home/known.raw").output().unwrap();
    String::from_utf8(sum.stdout).unwrap()[..64].to_owned()
}

#[test]
fn certificates_are_trusted_as_the_environment_says() {
    let certificate = Certificate::of(&["127.0.0.1"]);
    let server = Server::start_tls(&certificate, file);
    let url = server.url("/disk.raw");
    for variable in ["VMCTL_CA_FILE", "SSL_CERT_FILE"] {
        let mut world = World::new(0);
        let refused =
            world.vmctl(&["image", "pull", &url]).expect(1).says("no trusted connection to `127.0.0.1`");
        assert!(refused.says("VMCTL_CA_FILE").text().contains("certificate"));
        let path = world.folder().join("home/ca.pem");
        certificate.write(&path);
        world.set(variable, path);
        world.vmctl(&["image", "pull", &url]).expect(0);
    }
}

#[test]
fn proxies_are_used_and_passed_by_as_the_environment_says() {
    let certificate = Certificate::of(&["images.example"]);
    let secure = Server::start_tls(&certificate, file);
    let tunnel = Proxy::to(&secure.host());
    // A proxy is asked for whole URLs; what answers here, a proxy would have got from the server.
    let forward = Server::start(file);
    let direct = Server::start(file);
    let mut world = World::new(0);
    let sum = sha256(&world);
    let ca_file = world.folder().join("home/ca.pem");
    certificate.write(&ca_file);
    world.set("VMCTL_CA_FILE", ca_file);
    world.set("https_proxy", format!("http://me:s3cret@{}", tunnel.host()));
    world.set("http_proxy", forward.host());
    world.set("no_proxy", "127.0.0.1,.internal.example");

    let pulled = world.vmctl(&["image", "pull", "https://images.example/disk.raw"]).expect(0);
    assert!(!pulled.text().contains("s3cret"), "{}", pulled.text());
    let heads = tunnel.asked();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT images.example:443 ")), "{heads:?}");
    // me:s3cret, as RFC 7617 writes it.
    assert!(heads[0].contains("Basic bWU6czNjcmV0"), "{heads:?}");
    assert!(secure.asked().iter().all(|asked| !asked.headers.contains_key("proxy-authorization")));

    world.vmctl(&["image", "rm", &sum]).expect(0);
    world.vmctl(&["image", "pull", "http://images.example/disk.raw", "--sha256", &sum]).expect(0);
    assert_eq!(forward.asked()[0].path, "http://images.example/disk.raw");
    world.vmctl(&["image", "rm", &sum]).expect(0);
    world.vmctl(&["image", "pull", &direct.url("/disk.raw")]).expect(0);
    assert_eq!((direct.whole(), forward.asked().len()), (1, 1));

    // One that refuses, and one that is not there, are told by name and without their logins.
    let wants_login = Server::start(|_| Answer::status(407));
    let closed = format!("127.0.0.1:{}", free_port());
    for (proxy, said) in [(wants_login.host(), "authorization required"), (closed, "refused")] {
        world.set("https_proxy", format!("http://me:s3cret@{proxy}"));
        let failed = world.vmctl(&["image", "pull", "https://images.example/other.raw"]).expect(1);
        assert!(!failed.text().contains("s3cret"), "{}", failed.text());
        failed.says(said).says(&format!("the proxy `{proxy}`"));
    }
}

#[test]
fn logins_come_from_dockers_files_and_its_helpers() {
    let mut world = World::new(0);
    let sum = sha256(&world);
    let layer = format!(
        r#"{{"mediaType":"application/octet-stream","digest":"sha256:{sum}","size":{}}}"#,
        disk().len()
    );
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","layers":[{layer}]}}"#);
    let server = Server::start(move |asked| {
        // me:s3cret, as RFC 7617 writes it.
        if asked.headers.get("authorization").is_none_or(|login| login != "Basic bWU6czNjcmV0") {
            return Answer::status(401).header("WWW-Authenticate", "Basic realm=\"images\"");
        }
        if asked.path.contains("/blobs/") { file(asked) } else { Answer::whole(manifest.clone()) }
    });
    let url = format!("oci://{}/team/disk:12", server.host());
    let (docker, programs) = (world.folder().join("home/docker"), world.folder().join("home/programs"));
    for folder in [&docker, &programs] {
        fs::create_dir(folder).unwrap();
    }
    let path = surroundings::inherited("PATH").unwrap_or_default();
    let path = path.to_string_lossy();
    world.set("PATH", format!("{}:{path}", programs.display()));
    world.set("DOCKER_CONFIG", &docker);
    // For another registry, whatever this one asks for.
    world.set("GITHUB_TOKEN", "gh-token");
    let config = |text: String| fs::write(docker.join("config.json"), text).unwrap();
    let helper = |script: &str| {
        let path = programs.join("docker-credential-drawer");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let pull = |code| {
        let ended = world.vmctl(&["image", "pull", &url]).expect(code);
        assert!(!ended.text().contains("s3cret"), "{}", ended.text());
        ended
    };

    pull(1).says("answered 401").says("docker login");
    let host = server.host();
    config(format!(r#"{{"credHelpers":{{"{host}":"drawer"}}}}"#));
    pull(1).says("`docker-credential-drawer` cannot be asked");
    helper("echo the drawer is stuck: s3cret >&2; exit 1");
    pull(1).says("`docker-credential-drawer` failed").says("docker login");
    helper("echo no JSON: s3cret");
    pull(1).says("`docker-credential-drawer` answers no login");
    helper("echo 'credentials not found in native keychain'; exit 1");
    pull(1).says("answered 401");
    // It is told which registry is meant, and by nothing but its input.
    helper(&format!(
        "[ \"$1\" = get ] && [ \"$(cat)\" = '{host}' ] && echo '{{\"ServerURL\":\"{host}\",\"Username\":\"me\",\"Secret\":\"s3cret\"}}'"
    ));
    pull(0);

    world.vmctl(&["image", "rm", &sum]).expect(0);
    config(r#"{"credsStore":"drawer"}"#.to_owned());
    pull(0);
    world.vmctl(&["image", "rm", &sum]).expect(0);
    config(format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6czNjcmV0"}}}}}}"#));
    pull(0);
    let logins = server.asked().into_iter().filter_map(|asked| asked.headers.get("authorization").cloned());
    assert!(
        logins.into_iter().all(|login| login == "Basic bWU6czNjcmV0"),
        "GITHUB_TOKEN is for ghcr.io alone"
    );
}
