import CryptoKit
import Foundation

/// The model's files on this device: found, and verified against the manifest.
public struct ModelFolder: Sendable {
  public let url: URL
  public let manifest: Manifest
  public let format: ChatFormat
  /// Of the model's signature; nil where the app asks for none.
  public let version: Int?

  /// Open a folder that holds a bundle and `chat.json`.
  ///
  /// - Parameter signer: whose models are taken; nil takes any.
  /// - Throws: `EdgeModelError`: it is not signed as asked, or a file is missing, of another size, or unreadable. Hashes
  ///   are checked by `verify`.
  public init(_ url: URL, signer: Signer? = .packaged) throws {
    self.url = url
    let file = url.appendingPathComponent("manifest.json")
    guard let text = try? Data(contentsOf: file) else { throw EdgeModelError.missing(file.lastPathComponent) }
    version = try signer?.check(url, manifest: text)
    manifest = try Manifest.read(text)
    format = try ChatFormat.read(url.appendingPathComponent("chat.json"))
    for file in manifest.files {
      guard let size = try? self.file(file.path).resourceValues(forKeys: [.fileSizeKey]).fileSize else {
        throw EdgeModelError.missing(file.path)
      }
      guard size == file.size else { throw EdgeModelError.damaged(file.path) }
    }
  }

  /// The folder `Model` among an app's resources.
  public static func inResources(of bundle: Bundle = .main) throws -> ModelFolder {
    guard let url = bundle.url(forResource: "Model", withExtension: nil) else {
      throw EdgeModelError.missing("Model")
    }
    return try ModelFolder(url)
  }

  public var program: URL { file(manifest.program.main) }
  public var tokenizer: URL { file(manifest.tokenizer.file) }

  func file(_ path: String) -> URL { url.appendingPathComponent(path) }

  /// Check every file's SHA-256: once after each delivery is enough, and takes about as long as reading the files.
  ///
  /// - Throws: `EdgeModelError.damaged`, or `CancellationError` when the task was cancelled.
  public func verify() throws {
    for file in manifest.files {
      guard try sha256(self.file(file.path)) == file.sha256 else { throw EdgeModelError.damaged(file.path) }
    }
  }

  private func sha256(_ url: URL) throws -> String {
    guard let handle = try? FileHandle(forReadingFrom: url) else {
      throw EdgeModelError.missing(url.lastPathComponent)
    }
    defer { try? handle.close() }
    var hash = SHA256()
    while let part = try handle.read(upToCount: 1 << 20), !part.isEmpty {
      try Task.checkCancellation()
      hash.update(data: part)
    }
    return hash.finalize().map { String(format: "%02x", $0) }.joined()
  }
}
