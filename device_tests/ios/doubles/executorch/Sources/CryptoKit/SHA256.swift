// What of CryptoKit the package under test calls, by the program sha256sum: Linux has no CryptoKit.
import Foundation

public struct SHA256 {
  private var data = Data()

  public init() {}

  public mutating func update<D: DataProtocol>(data: D) { self.data.append(contentsOf: data) }

  public func finalize() -> [UInt8] {
    let process = Process(), input = Pipe(), output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/sha256sum")
    process.standardInput = input
    process.standardOutput = output
    try! process.run()
    input.fileHandleForWriting.write(data)
    try! input.fileHandleForWriting.close()
    let hexadecimal = Array(output.fileHandleForReading.readDataToEndOfFile().prefix(64))
    return stride(from: 0, to: 64, by: 2).map {
      UInt8(String(decoding: hexadecimal[$0..<$0 + 2], as: UTF8.self), radix: 16)!
    }
  }
}
