import Foundation

/// What a bundle's `manifest.json` says, as far as an app needs it.
public struct Manifest: Decodable, Sendable {
  public struct File: Decodable, Sendable {
    public let path: String
    public let size: Int
    public let sha256: String
  }

  public struct Program: Decodable, Sendable {
    public struct Facts: Decodable, Sendable {
      public let methods: [String: Fact]
    }

    public let main: String
    public let runtimeVersions: String
    public let facts: Facts
  }

  public struct Tokenizer: Decodable, Sendable {
    public let file: String
    public let stop: [Int]
  }

  public struct Model: Decodable, Sendable {
    public let name: String
    public let licence: String?
  }

  /// A number, a truth or a list that the program says about itself.
  public enum Fact: Decodable, Sendable, Equatable {
    case number(Int)
    case truth(Bool)
    case list([Int])

    public init(from decoder: Decoder) throws {
      let value = try decoder.singleValueContainer()
      if let truth = try? value.decode(Bool.self) {
        self = .truth(truth)
      } else if let number = try? value.decode(Int.self) {
        self = .number(number)
      } else {
        self = .list(try value.decode([Int].self))
      }
    }
  }

  static let schema = 1

  public let schema: Int
  public let model: Model
  public let program: Program
  public let context: Int
  public let tokenizer: Tokenizer
  public let files: [File]
  public let digest: String

  /// A number that the program says about itself.
  public func number(_ name: String) -> Int? {
    if case .number(let number)? = program.facts.methods[name] { return number }
    return nil
  }

  /// Whether ExecuTorch takes the program for a ring without an end, so that an answer which reaches the end of the context
  /// fails there: in bundles of before programs took a whole prompt in one call.
  var runsAsRing: Bool {
    guard let longest = number("get_max_seq_len"), let context = number("get_max_context_len") else { return false }
    return longest < context
  }

  static func read(_ data: Data) throws -> Manifest {
    let found: Manifest = try decoded(data, "manifest.json")
    guard found.schema == schema else {
      throw EdgeModelError.unreadable("manifest.json", "schema \(found.schema); this app reads \(schema)")
    }
    return found
  }
}

/// A JSON file with snake_case keys.
func decoded<T: Decodable>(_ url: URL) throws -> T {
  guard let data = try? Data(contentsOf: url) else { throw EdgeModelError.missing(url.lastPathComponent) }
  return try decoded(data, url.lastPathComponent)
}

private func decoded<T: Decodable>(_ data: Data, _ name: String) throws -> T {
  let decoder = JSONDecoder()
  decoder.keyDecodingStrategy = .convertFromSnakeCase
  do {
    return try decoder.decode(T.self, from: data)
  } catch {
    throw EdgeModelError.unreadable(name, "\(error)")
  }
}
