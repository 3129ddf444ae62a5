#!/usr/bin/env bash
# Makes the files of this folder anew; the keys of the CAs are thrown away. Needs OpenSSL 3.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/ca.conf" <<END
[ca]
default_ca = it
[it]
database = $work/index
new_certs_dir = $work
default_md = sha256
policy = any
rand_serial = yes
unique_subject = no
[any]
commonName = supplied
END
: > "$work/index"

key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

# Valid on machines whose clock is wrong by years, too.
certificate() { # name, key, common name, extensions, more options of openssl ca
  openssl req -new -key "$2" -subj "/CN=$3" -out "$work/$1.csr"
  openssl ca -batch -notext -config "$work/ca.conf" -in "$work/$1.csr" -out "$1.crt" \
    -startdate 20200101000000Z -enddate 21200101000000Z -extfile <(printf '%s\n' "$4") "${@:5}"
}

authority() { # name, common name
  key "$work/$1.key"
  certificate "$1" "$work/$1.key" "$2" "basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash" -selfsign -keyfile "$work/$1.key"
}

authority ca "erserver test CA"
authority other-ca "another test CA"
by_ca=(-keyfile "$work/ca.key" -cert ca.crt)

key server.key
certificate server server.key "erserver test server" "subjectAltName = DNS:db.erserver.test, IP:127.0.0.1
extendedKeyUsage = serverAuth" "${by_ca[@]}"

# The key is encrypted with the word "passphrase".
key "$work/client.key"
certificate client "$work/client.key" "certified" "extendedKeyUsage = clientAuth" "${by_ca[@]}"
openssl pkcs8 -topk8 -in "$work/client.key" -v2 aes-256-cbc -passout pass:passphrase -out client.key

# Two lists of the same CA: one that revokes nothing, and one that revokes the server's certificate.
list() { openssl ca -config "$work/ca.conf" "${by_ca[@]}" "$@"; }
until=(-crl_lastupdate 20200101000000Z -crl_nextupdate 21200101000000Z)
list -gencrl "${until[@]}" -out none-revoked.crl
list -revoke server.crt
list -gencrl "${until[@]}" -out server-revoked.crl
