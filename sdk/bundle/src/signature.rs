//! The member `signature.json`: an Ed25519 signature over the manifest, which holds the hash of every other member.
//!
//! What is signed is the text `ssl-edge bundle manifest` and a zero byte, then the bytes of `manifest.json` as they are in the file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::write::pack_sealed;
use crate::{Bundle, BundleError, MANIFEST, PublicKey, SIGNATURE, SecretKey, hex};

/// Keeps a signature of something else from being one of a manifest.
const CONTEXT: &[u8] = b"ssl-edge bundle manifest\0";
const ALGORITHM: &str = "ed25519";

/// Contents of the member. Fields that a reader does not know are ignored.
#[derive(Serialize, Deserialize)]
struct Member {
    algorithm: String,
    /// 32 bytes in hexadecimal.
    public_key: String,
    /// 64 bytes in hexadecimal.
    signature: String,
}

impl Bundle {
    /// The bytes of this bundle with a signature by `key`, which replaces another. All else stays, the encoder's hash too.
    ///
    /// # Errors
    /// As [`Bundle::member`].
    pub fn signed(&self, key: &SecretKey) -> Result<Vec<u8>, BundleError> {
        let names = self.member_names();
        let others = names.filter(|name| ![MANIFEST, SIGNATURE].contains(name));
        let names: Vec<&str> = std::iter::once(MANIFEST).chain(others).collect();
        let contents = names
            .iter()
            .map(|name| self.member(name))
            .collect::<Result<Vec<_>, _>>()?;
        let signature = sign(&contents[0], key);
        let members = names.iter().zip(&contents);
        let mut members: Vec<(&str, &[u8])> = members.map(|(name, c)| (*name, &**c)).collect();
        members.push((SIGNATURE, &signature));
        Ok(pack_sealed(&members))
    }

    /// [`Bundle::open`] and [`Bundle::require_signature`].
    ///
    /// # Errors
    /// As of both.
    pub fn open_signed(path: &Path, key: &PublicKey) -> Result<Self, BundleError> {
        let bundle = Self::open(path)?;
        bundle.require_signature(key)?;
        Ok(bundle)
    }

    /// Checks that `key` signed the bundle.
    ///
    /// # Errors
    /// [`BundleError::Unsigned`] or [`BundleError::OtherSigner`].
    pub fn require_signature(&self, key: &PublicKey) -> Result<(), BundleError> {
        let (path, required) = (self.path().to_owned(), Box::new(*key));
        match self.signer() {
            Some(found) if found == *key => Ok(()),
            Some(found) => Err(BundleError::OtherSigner {
                path,
                found: Box::new(found),
                required,
            }),
            None => Err(BundleError::Unsigned { path, required }),
        }
    }
}

/// The member for a manifest.
pub(crate) fn sign(manifest: &[u8], key: &SecretKey) -> Vec<u8> {
    let member = Member {
        algorithm: ALGORITHM.to_owned(),
        public_key: key.public().to_string(),
        signature: hex(&key.sign(&message(manifest))),
    };
    serde_json::to_vec_pretty(&member).expect("plain structs always serialise")
}

/// Whose signature the member holds; an error if it does not hold for the manifest.
pub(crate) fn verify(manifest: &[u8], member: &[u8]) -> Result<PublicKey, String> {
    let member: Member = serde_json::from_slice(member).map_err(|error| error.to_string())?;
    if member.algorithm != ALGORITHM {
        return Err(format!(
            "algorithm {:?} is not {ALGORITHM}",
            member.algorithm
        ));
    }
    let key = unhex::<32>(&member.public_key)
        .and_then(|bytes| PublicKey::from_bytes(&bytes))
        .ok_or("public_key is none")?;
    let signature = unhex::<64>(&member.signature).ok_or("signature is not 64 bytes")?;
    if !key.verifies(&message(manifest), &signature) {
        return Err("it is of another manifest or by another key".to_owned());
    }
    Ok(key)
}

fn message(manifest: &[u8]) -> Vec<u8> {
    [CONTEXT, manifest].concat()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = high << 4 | low;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_manifest_and_key_only() {
        let key = SecretKey::from_seed(&[7; 32]);
        let member = sign(b"{}", &key);
        assert_eq!(verify(b"{}", &member), Ok(key.public()));
        assert!(verify(b"{ }", &member).is_err());
        let other = SecretKey::from_seed(&[8; 32]).public().to_string();
        let text = String::from_utf8(member).unwrap();
        let replaced = text.replace(&key.public().to_string(), &other);
        assert_ne!(text, replaced);
        assert!(verify(b"{}", replaced.as_bytes()).is_err());
        // the message has a context: a bare signature of the same bytes is none
        let bare = text.replace(&hex(&key.sign(&message(b"{}"))), &hex(&key.sign(b"{}")));
        assert_ne!(text, bare);
        assert!(verify(b"{}", bare.as_bytes()).is_err());
    }

    #[test]
    fn the_key_of_rfc_8032_signs_as_printed_there() {
        let seed =
            unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SecretKey::from_seed(&seed);
        assert_eq!(
            key.public().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        assert_eq!(
            hex(&key.sign(b"")),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
    }

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(unhex::<2>("0aFf"), Some([0x0a, 0xff]));
        for wrong in ["", "0", "0aff0", "0aff00", "0ag0", "+a00", "0aé"] {
            assert_eq!(unhex::<2>(wrong), None, "{wrong}");
        }
    }
}
