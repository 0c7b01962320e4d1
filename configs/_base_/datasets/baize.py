# Baize's self-chats about questions of Quora: data/quora_chat_data.json of
# https://github.com/project-baize/baize-chatbot
baize = dict(
    type="InstructionDataset",
    name="baize",
    parser="baize",
    source="language",
    data_root="${data_root}",
    ann_file="baize/quora_chat_data.json",
    pipeline=["${answer_steps}"],
)
