import CryptoKit
import Foundation

/// Whose models an app takes: they are signed with this key, and not older than a version.
public struct Signer: Sendable {
  /// The public key, 64 hexadecimal digits, as `edgesdk keys show` prints it.
  public let key: String
  /// The version that a model must have at least.
  public let oldest: Int

  public init(key: String, oldest: Int = 1) {
    self.key = key
    self.oldest = oldest
  }

  private struct Signature: Decodable {
    let key: String
    let version: Int
    let signature: String
  }

  static let file = "signature.json"
  private static let largest = 1024

  /// Check the signature beside a manifest; returns the model's version.
  ///
  /// - Throws: `EdgeModelError.refused`.
  func check(_ folder: URL, manifest: Data) throws -> Int {
    let url = folder.appendingPathComponent(Self.file)
    guard let size = try? url.resourceValues(forKeys: [.fileSizeKey]).fileSize, size <= Self.largest,
      let data = try? Data(contentsOf: url)
    else { throw EdgeModelError.refused("the model is not signed") }
    guard let found = try? JSONDecoder().decode(Signature.self, from: data) else {
      throw EdgeModelError.refused("\(Self.file) cannot be read")
    }
    guard found.key == key else { throw EdgeModelError.refused("the model is signed with another key") }
    var hash = SHA256()
    hash.update(data: manifest)
    let digest = hash.finalize().map { String(format: "%02x", $0) }.joined()
    let statement = Data("edgesdk bundle signature 1\nmanifest \(digest)\nversion \(found.version)\n".utf8)
    guard let owner = try? Curve25519.Signing.PublicKey(rawRepresentation: bytes(key)),
      owner.isValidSignature(bytes(found.signature), for: statement)
    else { throw EdgeModelError.refused("the signature is not of this model: one of them was changed") }
    guard found.version >= oldest else {
      throw EdgeModelError.refused("the model has version \(found.version), older than \(oldest)")
    }
    return found.version
  }

  private func bytes(_ hexadecimal: String) -> Data {
    let digits = Array(hexadecimal.utf8)
    return Data(
      stride(from: 0, to: digits.count - 1, by: 2).compactMap {
        UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)
      })
  }
}
