# Baize: chats of ChatGPT with itself about questions of Quora (arXiv:2304.01196).
baize = dict(
    type="InstructionDataset",
    name="baize",
    parser="baize",
    source="language",
    data_root="${data_root}",
    ann_file=dict(
        path="baize/quora_chat_data.json",
        source="Baize's chats (github.com/project-baize/baize-chatbot: data/quora_chat_data.json)",
    ),
    pipeline=["${answer_steps}"],
)
