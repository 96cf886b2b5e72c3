// What ExecuTorchLLMTextRunner.h and ExecuTorchLLMConfig.h declare, over a program that drives the real TextLLMRunner.
//
// EDGESDK_TEXT_RUNNER is its command line, with tabs between words: device_tests/android/runner.py says its protocol.
import Foundation

public class Config: NSObject {
  public var isEchoEnabled = true
  public var maximumNewTokens = -1
  public var isWarming = false
  public var sequenceLength = -1
  public var temperature = 0.8
  public var bosCount = 0
  public var eosCount = 0

  public init(_ block: (Config) -> Void) {
    super.init()
    block(self)
  }
}

public class TextRunner: NSObject {
  private let files: [String]
  private var child: Child?
  private let lock = NSLock()
  private var stopping = false

  public convenience init(modelPath: String, tokenizerPath: String) {
    self.init(modelPath: modelPath, tokenizerPath: tokenizerPath, specialTokens: [])
  }

  public init(modelPath: String, tokenizerPath: String, specialTokens: [String]) {
    files = [modelPath, tokenizerPath]
  }

  public func isLoaded() -> Bool { child != nil }

  public func load() throws {
    guard child == nil else { return }
    let started = try Child(files)
    started.send("load")
    while try started.reply().verb != "done" {}
    child = started
  }

  public func generate(_ prompt: String, _ config: Config, tokenCallback callback: ((String) -> Void)? = nil) throws {
    try load()
    guard let child else { return }
    setStopping(false)
    let text = Data(prompt.utf8).base64EncodedString()
    child.send("generate \(config.sequenceLength) \(config.temperature) \(config.bosCount) 0 \(text)")
    var given = 0
    while true {
      let (verb, data) = try child.reply()
      if verb == "done" { return }
      guard verb == "piece" else { continue }
      if !isStopping, config.maximumNewTokens < 0 || given < config.maximumNewTokens {
        callback?(String(data: data, encoding: .utf8) ?? "")  // what stringWithUTF8String gives is nil, and nil is ""
        given += 1
      }
      if isStopping || given == config.maximumNewTokens { child.send("stop") }
      child.send("next")
    }
  }

  public func stop() { setStopping(true) }

  public func reset() {
    guard let child else { return }
    child.send("reset")
    _ = try? child.reply()
  }

  private var isStopping: Bool { lock.withLock { stopping } }
  private func setStopping(_ value: Bool) { lock.withLock { stopping = value } }
}

private final class Child {
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var rest = Data()

  init(_ files: [String]) throws {
    let words = ProcessInfo.processInfo.environment["EDGESDK_TEXT_RUNNER"]!.split(separator: "\t").map(String.init)
    process.executableURL = URL(fileURLWithPath: words[0])
    process.arguments = words.dropFirst() + files
    process.standardInput = input
    process.standardOutput = output
    try process.run()
  }

  deinit { try? input.fileHandleForWriting.close() }

  func send(_ line: String) { input.fileHandleForWriting.write(Data((line + "\n").utf8)) }

  /// The next line; `failed` is thrown.
  func reply() throws -> (verb: String, data: Data) {
    while !rest.contains(10) {
      let part = output.fileHandleForReading.availableData
      guard !part.isEmpty else { throw failure("the runner ended") }
      rest += part
    }
    let end = rest.firstIndex(of: 10)!
    let words = String(decoding: rest[rest.startIndex..<end], as: UTF8.self).split(separator: " ")
    rest = Data(rest[rest.index(after: end)...])
    let data = words.count > 1 ? Data(base64Encoded: String(words[1]))! : Data()
    if words[0] == "failed" { throw failure(String(decoding: data, as: UTF8.self)) }
    return (String(words[0]), data)
  }

  private func failure(_ why: String) -> NSError {
    NSError(domain: "ExecuTorchLLM", code: 35, userInfo: [NSLocalizedDescriptionKey: why])
  }
}
