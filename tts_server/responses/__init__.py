"""`POST /v1/responses` on top of chats: its request as a chat, and a chat's events as its items."""
