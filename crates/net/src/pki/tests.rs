use super::*;

fn identity(cluster: u128) -> Identity {
    Identity {
        cluster: ClusterId::new(cluster),
        slot: Slot::new("s1").unwrap(),
        generation: u64::MAX,
        server: ServerId::new(7),
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn an_identity_comes_back_from_its_certificate_with_the_date() {
    let authority = Authority::generate(ClusterId::new(1)).unwrap();
    let issued = authority.issue_server(&identity(1), SERVER_VALIDITY).unwrap();

    let (read, validity) = Identity::from_certificate(&der(&issued.cert_pem)).unwrap();

    assert_eq!(read, identity(1));
    let left = validity.left(SystemTime::now());
    let expected = SERVER_VALIDITY - Duration::from_secs(60)..=SERVER_VALIDITY;
    assert!(expected.contains(&left), "{left:?}");
}

#[test]
fn a_loaded_authority_is_the_one_that_was_saved() {
    let made = Authority::generate(ClusterId::new(1)).unwrap();
    let loaded = Authority::load(made.cert_pem(), &made.key_pem()).unwrap();
    assert_eq!((loaded.cluster(), loaded.fingerprint()), (ClusterId::new(1), made.fingerprint()));
    loaded.issue_server(&identity(1), SERVER_VALIDITY).unwrap();
}

#[test]
fn an_authority_is_not_loaded_with_the_key_of_another() {
    let (one, other) = (
        Authority::generate(ClusterId::new(1)).unwrap(),
        Authority::generate(ClusterId::new(1)).unwrap(),
    );
    let error = Authority::load(one.cert_pem(), &other.key_pem()).unwrap_err();
    assert_eq!(error, PkiError::KeyMismatch);
}

#[test]
fn an_authority_vouches_for_its_own_cluster_only() {
    let authority = Authority::generate(ClusterId::new(1)).unwrap();
    let error = authority.issue_server(&identity(2), SERVER_VALIDITY).unwrap_err();
    let (authority, asked) = (ClusterId::new(1), ClusterId::new(2));
    assert_eq!(error, PkiError::OtherCluster { authority, asked });
}

#[test]
fn an_authority_is_not_a_server_and_a_server_not_an_authority() {
    let authority = Authority::generate(ClusterId::new(1)).unwrap();
    let server = authority.issue_server(&identity(1), SERVER_VALIDITY).unwrap();
    assert_eq!(
        Identity::from_certificate(&der(authority.cert_pem())),
        Err(PkiError::NotOfChatty { expected: "server" })
    );
    assert_eq!(
        authority_cluster(&der(&server.cert_pem)),
        Err(PkiError::NotOfChatty { expected: "authority" })
    );
}

#[test]
fn a_fingerprint_is_read_as_it_is_written_and_nothing_else_is() {
    let fingerprint = Authority::generate(ClusterId::new(1)).unwrap().fingerprint();
    let text = fingerprint.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(text.parse(), Ok(fingerprint));
    for bad in ["", &text[1..], &format!("+{}", &text[1..]), &format!("{text}0"), &"é".repeat(32)]
    {
        assert_eq!(bad.parse::<Fingerprint>(), Err(NotAFingerprint), "{bad}");
    }
}

#[test]
fn the_name_in_a_certificate_has_four_parts_and_no_more() {
    let path = identity(1).uri().strip_prefix(SCHEME).unwrap().to_owned();
    assert_eq!(Identity::from_path(&path), Some(identity(1)));
    for bad in [format!("{path}/x"), path.replace("s1", "S 1"), path.replace("/s1", "")] {
        assert_eq!(Identity::from_path(&bad), None, "{bad}");
    }
}
