// What of CryptoKit the package under test calls, by the program that EDGESDK_ED25519 names.
import Foundation

public enum Curve25519 {
  public enum Signing {
    public struct PublicKey {
      private let key: Data

      public init<D: ContiguousBytes>(rawRepresentation data: D) throws {
        key = data.withUnsafeBytes { Data($0) }
        guard key.count == 32 else { throw CocoaError(.coderInvalidValue) }
      }

      public func isValidSignature<S: DataProtocol, D: DataProtocol>(_ signature: S, for data: D) -> Bool {
        let command = ProcessInfo.processInfo.environment["EDGESDK_ED25519"]!.split(separator: "\t").map(String.init)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: command[0])
        process.arguments = command.dropFirst() + [key.hexadecimal, Data(signature).hexadecimal, Data(data).hexadecimal]
        try! process.run()
        process.waitUntilExit()
        return process.terminationStatus == 0
      }
    }
  }
}

extension Data {
  fileprivate var hexadecimal: String { map { String(format: "%02x", $0) }.joined() }
}
