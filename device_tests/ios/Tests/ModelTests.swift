// What the package does with a real tiny model, whose folder EDGESDK_MODEL names, and with one that never ends by
// itself (EDGESDK_ENDLESS_MODEL): for Linux, with the double of ExecuTorch.
import Foundation
import XCTest

@testable import EdgeBenchmark
@testable import EdgeModel

final class ModelTests: XCTestCase {
  private let original = URL(fileURLWithPath: ProcessInfo.processInfo.environment["EDGESDK_MODEL"]!)
  private let endless = URL(fileURLWithPath: ProcessInfo.processInfo.environment["EDGESDK_ENDLESS_MODEL"]!)
  private var copies: [URL] = []

  override func tearDown() {
    copies.forEach { try? FileManager.default.removeItem(at: $0) }
  }

  private func copy() throws -> URL {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.copyItem(at: original, to: url)
    copies.append(url)
    return url
  }

  private func read(_ stream: AsyncThrowingStream<AnswerEvent, Error>) async throws -> (String, Statistics?) {
    var text = "", statistics: Statistics?
    for try await event in stream {
      switch event {
      case .text(let part): text += part
      case .done(let found): statistics = found
      }
    }
    return (text, statistics)
  }

  func testAnAnswerHoldsWholeCharactersAndAMarkForTheOneThatTheRuntimeSplits() async throws {
    let model = EdgeModel(try ModelFolder(original))
    let (text, statistics) = try await read(model.answer([Message(.user, "Hi")]))
    XCTAssertEqual(text, "Grün日\u{FFFD}!")
    let found = try XCTUnwrap(statistics)
    XCTAssertEqual(found.pieces, 7)
    XCTAssertEqual(found.lostCharacters, 1)
    XCTAssertFalse(found.stopped)
    XCTAssertNotNil(found.timeToFirstToken)
    XCTAssertGreaterThan(try XCTUnwrap(found.tokensPerSecond), 0)
    let again = try await read(model.answer([Message(.user, "Hi")]))
    XCTAssertEqual(again.0, text)
  }

  func testMostTokensEndAnAnswer() async throws {
    let model = EdgeModel(try ModelFolder(original))
    let (text, statistics) = try await read(
      model.answer([Message(.user, "Hi")], options: AnswerOptions(maximumTokens: 3)))
    XCTAssertEqual(text, "Grün")
    XCTAssertEqual(statistics?.pieces, 3)
    XCTAssertEqual(statistics?.stopped, false)
  }

  func testAnAnswerEndsAtTheContext() async throws {
    try await fill(EdgeModel(try ModelFolder(endless)), room: 12)
  }

  func testAnAnswerEndsAtTheContextWhereExecuTorchFails() async throws {
    let ring = URL(fileURLWithPath: ProcessInfo.processInfo.environment["EDGESDK_RING_MODEL"]!)
    try await fill(EdgeModel(try ModelFolder(ring)), room: 13)  // it takes one more token than other programs
  }

  /// Ask with room for 12 tokens, with none, and from the start.
  private func fill(_ model: EdgeModel, room: Int) async throws {
    let context = model.folder.manifest.context
    let empty = try model.folder.format.prompt([Message(.user, "")])
    let special = 3  // "<s>" twice and "</s>" once: a token each, and all else a token a letter
    let around = empty.utf8.count - "<s></s><s>".utf8.count + special
    let text = String(repeating: "L", count: context - around - 12)
    let (_, statistics) = try await read(
      model.answer([Message(.user, text)], options: AnswerOptions(maximumTokens: 200)))
    XCTAssertEqual(statistics?.pieces, room)
    XCTAssertEqual(statistics?.stopped, false)
    for longer in [12, 13, 500] {
      do {
        _ = try await read(model.answer([Message(.user, text + String(repeating: "L", count: longer))]))
        XCTFail("it answered \(longer)")
      } catch {
        XCTAssertEqual(error as? EdgeModelError, .contextFull(context))
      }
    }
    let again = try await read(model.answer([Message(.user, "L")], options: AnswerOptions(maximumTokens: 3)))
    XCTAssertEqual(again.1?.pieces, 3)
  }

  func testStopEndsAnAnswer() async throws {
    let model = EdgeModel(try ModelFolder(endless))
    var statistics: Statistics?
    for try await event in await model.answer([Message(.user, "L")], options: AnswerOptions(maximumTokens: 200)) {
      if case .text = event { model.stop() }
      if case .done(let found) = event { statistics = found }
    }
    let found = try XCTUnwrap(statistics)
    XCTAssertTrue(found.stopped)
    XCTAssertLessThan(found.pieces, 200)
  }

  func testAStopBeforeTheFirstTokenIsNotLost() async throws {
    let model = EdgeModel(try ModelFolder(endless))
    try await model.load()
    let stream = await model.answer([Message(.user, "L")], options: AnswerOptions(maximumTokens: 200))
    let stopper = Task {
      while !Task.isCancelled {  // whenever the answer begins: before it, within the prompt, or after
        model.stop()
        await Task.yield()
      }
    }
    let found = try await read(stream)
    stopper.cancel()
    XCTAssertEqual(found.1?.stopped, true)
    XCTAssertLessThan(try XCTUnwrap(found.1).pieces, 3)
  }

  func testACancelledReaderStopsTheRunner() async throws {
    let model = EdgeModel(try ModelFolder(endless))
    for try await _ in await model.answer([Message(.user, "L")], options: AnswerOptions(maximumTokens: 200)) { break }
    var attempts = 0
    while true {  // the runner ends after its present token
      do {
        _ = try await read(model.answer([Message(.user, "L")], options: AnswerOptions(maximumTokens: 1)))
        break
      } catch EdgeModelError.busy where attempts < 1000 {
        attempts += 1
        try await Task.sleep(for: .milliseconds(5))
      }
    }
  }

  func testOneAnswerAtATime() async throws {
    let model = EdgeModel(try ModelFolder(endless))
    let first = await model.answer([Message(.user, "L")], options: AnswerOptions(maximumTokens: 200))
    var events = first.makeAsyncIterator()
    _ = try await events.next()
    do {
      _ = try await read(model.answer([Message(.user, "L")]))
      XCTFail("it answered twice at once")
    } catch {
      XCTAssertEqual(error as? EdgeModelError, .busy)
    }
    model.stop()
  }

  func testADamagedFileIsRefusedBeforeTheRuntimeSeesIt() async throws {
    let url = try copy()
    let program = url.appendingPathComponent("model.pte")
    var data = try Data(contentsOf: program)
    data[data.count / 2] ^= 1
    try data.write(to: program)
    let model = EdgeModel(try ModelFolder(url))
    do {
      try await model.load()
      XCTFail("it loaded")
    } catch {
      XCTAssertEqual(error as? EdgeModelError, .damaged("model.pte"))
    }
    try data.dropLast().write(to: program)
    XCTAssertThrowsError(try ModelFolder(url)) { XCTAssertEqual($0 as? EdgeModelError, .damaged("model.pte")) }
    try FileManager.default.removeItem(at: program)
    XCTAssertThrowsError(try ModelFolder(url)) { XCTAssertEqual($0 as? EdgeModelError, .missing("model.pte")) }
  }

  func testWhatTheRuntimeRefusesIsSaid() async throws {
    let url = try copy()
    try Data("no program".utf8).write(to: url.appendingPathComponent("model.pte"))
    let manifest = url.appendingPathComponent("manifest.json")
    let text = try String(contentsOf: manifest, encoding: .utf8)
    let old = try Manifest.read(Data(contentsOf: manifest)).files.first { $0.path == "model.pte" }!
    try text.replacingOccurrences(of: "\"size\": \(old.size)", with: "\"size\": 10")
      .write(to: manifest, atomically: true, encoding: .utf8)
    let model = EdgeModel(try ModelFolder(url, signer: nil))
    do {
      try await model.load(verifying: false)
      XCTFail("it loaded")
    } catch EdgeModelError.runtime(let why) {
      XCTAssertFalse(why.isEmpty)
    }
  }

  func testABenchmarkSpeaksTheRunnerProtocol() throws {
    var plan = Plan()
    plan.promptTokens = [5, 100_000]
    plan.newTokens = 4
    plan.repeats = 2
    let phone = Phone(
      facts: [("os", .text("ios"))], sensors: { [("thermal_state", .int(0))] }, memory: { [("footprint", .int(1000))] })
    try Benchmark(try ModelFolder(original), plan: plan, phone: phone) { print("LINE \($0)") }.run()
  }
}
