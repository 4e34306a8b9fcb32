/**
 * Imported for its effect before the generated code: without Long, protobufjs reads uint64 as number. Values above
 * 2^53 then lose digits, so the codec refuses them.
 */
import protobuf from 'protobufjs/minimal.js'

Object.assign(protobuf.util, { Long: null })
protobuf.configure()
