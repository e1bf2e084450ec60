use super::*;
use proptest::prelude::*;
use serde_json::json;

/// Text with a planted secret, and the secret.
const PLANTED: &[(&str, &str)] = &[
    ("connecting to postgres://app:hunter2x@db.example:5432/orders?sslmode=require", "hunter2x"),
    ("postgresql://app:p@ss:w0rd@db/orders", "p@ss:w0rd"),
    ("redis://:only-password@cache/0", "only-password"),
    ("postgres://app:sla/sh?ed@db:5432/orders", "sla/sh?ed"),
    ("host=db user=app password=hunter2x dbname=orders", "hunter2x"),
    ("primary_conninfo = 'user=replica password=hunter2x host=10.0.0.1'", "hunter2x"),
    ("PGPASSWORD=hunter2x psql -h db", "hunter2x"),
    ("env: PGPASSWORD: \"hunter two x\"", "hunter two x"),
    ("{\"user\":\"app\",\"password\":\"hunt\\\"er2x\",\"port\":5432}", "er2x"),
    ("{\"message\":\"{\\\"password\\\":\\\"hunter2x\\\"}\"}", "hunter2x"),
    ("  password: hunter2x # for the app", "hunter2x"),
    ("pg_dump --password hunter2x --host db", "hunter2x"),
    ("https://db/?user=a&sslpassword=hunter2x&sslmode=require", "hunter2x"),
    ("db.example:5432:orders:app:hunter2x", "hunter2x"),
    ("Authorization: Bearer abcDEF123456.~+/=", "abcDEF123456"),
    ("authorization: Digest username=\"x\", response=\"1234\"", "Digest"),
    ("curl -H 'x: Bearer abcDEF1234567890'", "abcDEF1234567890"),
    ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("Set-Cookie: session=abc123; HttpOnly", "abc123"),
    ("key AKIAIOSFODNN7EXAMPLE used", "AKIAIOSFODNN7EXAMPLE"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI"),
    ("AZURE AccountKey=Zm9vYmFyYmF6cXV4;EndpointSuffix=core", "Zm9vYmFyYmF6cXV4"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----\nafter", "MIIEow"),
    ("\"-----BEGIN PRIVATE KEY-----\\nMIIEow\\n-----END PRIVATE KEY-----\\n\"", "MIIEow"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNza", "b3BlbnNza"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "eyJzdWIiOiIxMjM0In0"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghij"),
    ("glpat-abcdefghij0123456789", "glpat-abcdefghij"),
    ("xoxb-1234567890-abcdefghij", "xoxb-1234567890"),
    ("sk_live_abcdefghij0123456789", "sk_live_abcdefghij"),
    ("ALTER ROLE app PASSWORD 'hunter2x';", "hunter2x"),
    ("rolpassword SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy", "c3RvcmVk"),
    ("rolpassword md50123456789abcdef0123456789abcdef", "md50123456789abcdef"),
    ("client_secret=\"abc def\"", "abc def"),
    ("token: 0a1b2c3d4e5f6a7b", "0a1b2c3d4e5f6a7b"),
    ("X-Api-Key: 12ab34cd", "12ab34cd"),
];

/// What must stay as it is.
const ORDINARY: &[&str] = &[
    "2026-11-20 21:04:05.123456+00 [1234] LOG:  redo starts at 0/3000148",
    "FATAL:  password authentication failed for user \"app\"",
    "password_encryption = scram-sha-256",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "{\"sha256\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"lsn\":\"0/3000148\"}",
    "run 0192f0c1-2b3c-7d4e-8f90-123456789abc at postgres://app@db:5432/orders",
    "http://127.0.0.1:8080/healthz?mail=a@b.example",
    "syntax error, unexpected token: identifier",
    "Basic authentication and bearer authentication are off",
    "PWD=/home/student SECRET_FILE=/run/secret",
    "password: $1, password=${PGPASSWORD}, password: null, password=[redacted]",
    "CREATE TABLE account (id bigint, password text NOT NULL, token text)",
    "000000010000000000000003.partial archived; system identifier 7439082193482",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "src/main.rs:12:5: error: it",
    "passwordSecret: app-user",
    "secret:\n  name: superuser",
    "[2001:db8::1]:5432",
    "http://[::1]:5432/x@y",
];

#[test]
fn every_planted_secret_is_taken_out_and_counted() {
    let redactor = Redactor::new();
    for (text, secret) in PLANTED {
        let (clean, count) = redactor.text(text);
        assert!(!clean.contains(secret), "{text}\n→ {clean}");
        assert!(clean.contains(MARK) && count >= 1, "{text}\n→ {clean}");
        assert_eq!(redactor.text(&clean), (Cow::Borrowed(clean.as_ref()), 0), "redacting twice changes something");
    }
}

#[test]
fn what_surrounds_a_secret_stays() {
    let redactor = Redactor::new();
    for (text, clean) in [
        ("postgres://app:x9@db/o", "postgres://app:[redacted]@db/o"),
        ("{\"password\":\"x\\\"y\",\"port\":1}", "{\"password\":\"[redacted]\",\"port\":1}"),
        ("{\"password\":12345,\"port\":1}", "{\"password\":[redacted],\"port\":1}"),
        ("host=a password=b dbname=c", "host=a password=[redacted] dbname=c"),
        ("PASSWORD 'x' VALID UNTIL", "PASSWORD '[redacted]' VALID UNTIL"),
        ("-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----\nafter", "[redacted]\nafter"),
    ] {
        assert_eq!(redactor.text(text).0, clean);
    }
}

#[test]
fn ordinary_text_stays() {
    for text in ORDINARY {
        assert_eq!(Redactor::new().text(text), (Cow::Borrowed(*text), 0));
    }
}

#[test]
fn known_secrets_go_in_every_form() {
    let redactor = Redactor::knowing(["s3cr\"t/näme"]);
    let planted = [
        "plain s3cr\"t/näme here".to_owned(),
        json!({ "note": "s3cr\"t/näme" }).to_string(),
        "user=s3cr%22t%2Fn%C3%A4me&x".to_owned(),
        "user=s3cr%22t%2fn%c3%a4me&x".to_owned(),
        "data: czNjciJ0L27DpG1l".to_owned(),
        "\\x7333637222742f6ec3a46d65".to_owned(),
    ];
    for text in planted {
        let (clean, count) = redactor.text(&text);
        assert_eq!(count, 1, "{text}\n→ {clean}");
    }
    assert!(!format!("{redactor:?}").contains("s3cr"));
}

#[test]
fn a_password_that_is_an_ordinary_word_does_not_blot_out_the_report() {
    let mut redactor = Redactor::new();
    assert!(!redactor.know("postgres") && !redactor.know("abc"));
    assert_eq!(redactor.text("postgres://postgres:postgres@db/postgres").0, "postgres://postgres:[redacted]@db/postgres");
}

#[test]
fn json_is_redacted_by_name_and_by_shape_and_stays_json() {
    let mut value = json!({
        "password": "two words", "port": 5432, "url": "postgres://u:p9@h/d", "nested": [{ "apiKey": "k" }, "ghp_abcdefghijklmnopqrstuvwxyz0123456789"],
        "key": [["password", "x"], ["id", "7"]], "passwords": { "count": 2 }, "token": "the next one",
    });
    let count = Redactor::new().value(&mut value);
    assert_eq!(count, 5);
    insta::assert_json_snapshot!(value, @r#"
    {
      "password": "[redacted]",
      "port": 5432,
      "url": "postgres://u:[redacted]@h/d",
      "nested": [
        {
          "apiKey": "[redacted]"
        },
        "[redacted]"
      ],
      "key": [
        [
          "password",
          "[redacted]"
        ],
        [
          "id",
          "7"
        ]
      ],
      "passwords": {
        "count": 2
      },
      "token": "the next one"
    }
    "#);
}

#[test]
fn binary_is_told_from_text() {
    assert!(is_binary(b"PGCOPY\n\0"));
    assert!(!is_binary("a log with ünïcode".as_bytes()));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Redactor::new().bytes(&bytes);
    }

    #[test]
    fn text_stays_utf8(text in "[ -~äö\n\\\\\"':=@/]{0,120}(password|token|://u:|Bearer |-----BEGIN PRIVATE KEY)?[ -~ä\n\\\\\"':=@/]{0,60}") {
        let redactor = Redactor::new();
        let (once, _) = redactor.bytes(text.as_bytes());
        prop_assert!(std::str::from_utf8(&once).is_ok());
    }
}
