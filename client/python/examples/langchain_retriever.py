"""Builds a LangChain retriever over window vectors and BM25, and a LangChain vector store with one vector per text.

    pip install "longembed[langchain]"
    LONGEMBED_SERVER=127.0.0.1:50051 python langchain_retriever.py
"""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from longembed import Client, Options
from longembed.langchain import LongEmbedEmbeddings, LongEmbedRetriever
from license_texts import read_licenses

QUESTIONS = [
    "What notice should a program print when it starts in interactive mode?",
    "May a wiki be published again under a Creative Commons license, and until which day?",
    "Do C subroutines that are linked into the interpreter change the language?",
    "In the courts of which jurisdiction may litigation be brought?",
]


def main() -> None:
    documents = [Document(id=name, page_content=text, metadata={"name": name}) for name, text in read_licenses().items()]
    with Client() as client:
        retriever = LongEmbedRetriever.from_documents(documents, client, k=2)
        names = retriever | RunnableLambda(lambda found: [document.metadata["name"] for document in found])
        embeddings = LongEmbedEmbeddings(client, document=Options(extension={"windows": {}}))
        store = InMemoryVectorStore.from_documents(documents, embeddings)
        for question in QUESTIONS:
            means = [document.metadata["name"] for document in store.similarity_search(question, k=2)]
            print(f"{question}\n  window vectors and BM25: {', '.join(names.invoke(question))}\n  means of windows: {', '.join(means)}")


if __name__ == "__main__":
    main()
