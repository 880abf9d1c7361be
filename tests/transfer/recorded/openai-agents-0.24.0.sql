BEGIN TRANSACTION;
CREATE TABLE agent_messages (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT NOT NULL,
                message_data TEXT NOT NULL,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
                FOREIGN KEY (session_id) REFERENCES agent_sessions (session_id)
                    ON DELETE CASCADE
            );
INSERT INTO "agent_messages" VALUES(1,'plain','{"role": "user", "content": "weather in Rome? \u2014 \u00e9\ud83d\udcbe"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(2,'plain','{"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I ask the tool."}]}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(3,'plain','{"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Rome\"}"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(4,'plain','{"type": "function_call_output", "call_id": "call_1", "output": "22 \u00b0C"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(5,'plain','{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "It is 22 \u00b0C.", "annotations": []}]}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(6,'A|b: é/💾','{"role": "user", "content": "weather in Rome? \u2014 \u00e9\ud83d\udcbe"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(7,'A|b: é/💾','{"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I ask the tool."}]}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(8,'A|b: é/💾','{"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Rome\"}"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(9,'A|b: é/💾','{"type": "function_call_output", "call_id": "call_1", "output": "22 \u00b0C"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(10,'A|b: é/💾','{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "It is 22 \u00b0C.", "annotations": []}]}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(11,'~odd','{"role": "user", "content": "weather in Rome? \u2014 \u00e9\ud83d\udcbe"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(12,'~odd','{"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I ask the tool."}]}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(13,'~odd','{"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Rome\"}"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(14,'~odd','{"type": "function_call_output", "call_id": "call_1", "output": "22 \u00b0C"}','2026-11-22 18:14:23');
INSERT INTO "agent_messages" VALUES(15,'~odd','{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "It is 22 \u00b0C.", "annotations": []}]}','2026-11-22 18:14:23');
CREATE TABLE agent_sessions (
                session_id TEXT PRIMARY KEY,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
                updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
            );
INSERT INTO "agent_sessions" VALUES('plain','2026-11-22 18:14:23','2026-11-22 18:14:23');
INSERT INTO "agent_sessions" VALUES('A|b: é/💾','2026-11-22 18:14:23','2026-11-22 18:14:23');
INSERT INTO "agent_sessions" VALUES('~odd','2026-11-22 18:14:23','2026-11-22 18:14:23');
CREATE INDEX idx_agent_messages_session_id
            ON agent_messages (session_id, id)
        ;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('agent_messages',16);
COMMIT;
